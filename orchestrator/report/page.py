"""The report: one self-contained page in HTML, the same in Markdown, and the figures.

The page is passed around and read on machines without a network, so styles and figures are inside it and it has no
scripts at all; a content security policy in its head makes the browser enforce that. It shows scores, settings and ids,
but no question and no answer, as these may be clinical text.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt

from orchestrator.config.published import Published
from orchestrator.core.files import make_private, write_atomic
from orchestrator.core.processes import shared_out
from orchestrator.core.text import listed
from orchestrator.report import figures, search
from orchestrator.report.beside import Beside
from orchestrator.report.learning import learning_curves
from orchestrator.report.sections import sections
from orchestrator.report.style import render
from orchestrator.report.trajectories import trajectories
from orchestrator.report.words import summary, unmeasured, warnings
from orchestrator.results.board import Board
from orchestrator.results.layout import Layout

FIGURE_S, ROW_S = 0.5, 350e-6
"""About what it takes to render a figure, and a recipe's rows in both pages."""


def write_report(board: Board, layout: Layout, published: Published | None = None) -> Path:
    """Write report.html, report.md and the figures.

    Args:
        published: published figures to compare the run's with.

    Returns:
        The path of report.html.
    """
    beside = Beside(board, published) if published else None
    drawn = {
        "front": figures.front(board, beside),
        "trajectories": trajectories(board, beside),
        "volume": search.volume(board),
        "parallel": search.parallel(board),
        "learning": learning_curves(board, beside),
    }
    present = {name: figure for name, figure in drawn.items() if figure is not None}
    pictures = dict(zip(present, shared_out(render, [*present.values()], FIGURE_S * len(present)), strict=True))
    make_private(layout.figures)
    for name in drawn:
        for kind in ("png", "svg"):
            _write_picture(layout.figures / f"{name}.{kind}", pictures.get(name, {}).get(kind))
    environment = _environment()
    content = {
        "title": f"Merges of {listed(board.config.parents)}",
        "warnings": warnings(board),
        "unmeasured": unmeasured(board),
        "summary": summary(board),
        "sections": sections(board, set(pictures), beside),
        "pictures": {name: base64.b64encode(files["svg"]).decode() for name, files in pictures.items()},
    }

    def write_page(file: Path) -> None:
        write_atomic(file, environment.get_template(f"{file.name}.jinja").render(content))

    for _ in shared_out(write_page, (layout.report_md, layout.report_html), ROW_S * len(board.all_rows)):
        pass
    return layout.report_html


def _write_picture(path: Path, data: bytes | None) -> None:
    """Write a figure, or remove that of an earlier report where it cannot be drawn any more."""
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
    """Escape text so that Markdown shows exactly this text, on one line and inside a table too.

    Underscores are not escaped: inside a word they have no meaning, and task names are full of them.
    """
    text = re.sub(r"[\\`*\[\]|]", r"\\\g<0>", " ".join(text.split()))
    return re.sub(r"<(?=[\w/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", text))
