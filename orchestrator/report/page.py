"""The report: one page in HTML that is all of itself, the same in Markdown, and the pictures.

The page is handed around and read on machines without a network, so styles and pictures are inside it and
scripts are not in it at all; a content security policy in its head has the browser hold us to that. It shows
scores, settings and ids: no question and no answer, for these may be clinical text.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt

from orchestrator.config.published import Published
from orchestrator.core.files import make_private, write_atomic
from orchestrator.report import figures
from orchestrator.report import search as searched
from orchestrator.report.finetune import learning_curves
from orchestrator.report.sections import sections
from orchestrator.report.style import render
from orchestrator.report.words import listed, summary, unmeasured, warnings
from orchestrator.results.board import Board


def write_report(board: Board, out: Path, published: Published | None = None) -> Path:
    """report.html, report.md and figures/ in `out`.

    Args:
        published: others' figures, to stand beside the run's.

    Returns:
        The path of report.html.
    """
    drawn = {
        "front": figures.front(board),
        "trajectories": figures.trajectories(board),
        "volume": searched.volume(board),
        "parallel": searched.parallel(board),
        "learning": learning_curves(board),
    }
    pictures = {name: render(figure) for name, figure in drawn.items() if figure is not None}
    make_private(out / "figures")
    for name in drawn:
        for kind in ("png", "svg"):
            _write_picture(out / "figures" / f"{name}.{kind}", pictures.get(name, {}).get(kind))
    environment = _environment()
    content = {
        "title": f"Merges of {listed(board.config.parents)}",
        "warnings": warnings(board),
        "unmeasured": unmeasured(board),
        "summary": summary(board),
        "sections": sections(board, set(pictures), published),
        "pictures": {name: base64.b64encode(files["svg"]).decode() for name, files in pictures.items()},
    }
    for name in ("report.md", "report.html"):
        write_atomic(out / name, environment.get_template(f"{name}.jinja").render(content))
    return out / "report.html"


def _write_picture(path: Path, data: bytes | None) -> None:
    """A picture that cannot be drawn now may have been drawn by an earlier report; it must not outlive it."""
    if data is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, data)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("orchestrator.report", "."),
        autoescape=select_autoescape(enabled_extensions=("html.jinja",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["from_md"] = MarkdownIt("commonmark", {"html": False}).enable("table").render
    environment.filters["slug"] = lambda text: "".join(c if c.isalnum() else "-" for c in text.lower())
    return environment


def escape_markdown(text: str) -> str:
    """Text as Markdown that shows exactly it, on one line and inside a table too.

    Underscores stay: inside a word they mean nothing, and task names are full of them.
    """
    text = re.sub(r"[\\`*\[\]|]", r"\\\g<0>", " ".join(text.split()))
    return re.sub(r"<(?=[\w/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", text))
