"""What MkDocs needs to know of this repository: pages link to files outside docs/, and the site has them too.

A file outside docs/ that a page of the site links to becomes a page of its own below repository/: Markdown as it is,
everything else as a block of code. Links are rewritten to lead there, so that the site is complete without a network.
A link that leads nowhere stays as it is, and `mkdocs build --strict` fails on it; so does a page that would load
anything from the network.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from check_links import ROOT, links, meant

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

DOCS = ROOT / "docs"
FOREIGN = re.compile(r"<(?:script|img|iframe)\b[^>]*\ssrc=\"?https?:[^\s\">]*|<link\b[^>]*\shref=\"?https?:[^\s\">]*")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".sbatch": "bash"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages link to, and what those link to."""
    from mkdocs.structure.files import File, InclusionLevel

    waiting = [DOCS / file.src_uri for file in files.documentation_pages()]
    while waiting:
        for path in sorted(linked(waiting.pop())):
            name = uri(path)
            if path.is_file() and not path.is_relative_to(DOCS) and name not in files.src_uris:
                file = File.generated(config, name, content=content(path), inclusion=InclusionLevel.NOT_IN_NAV)
                files.append(file)
                waiting += [path] if path.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are on the site."""
    path = origin(page.file.src_uri)
    if path.suffix != ".md":
        return markdown
    home = posixpath.dirname(page.file.src_uri)
    for link in set(links(markdown)):
        target, anchor = meant(path, link)
        moved = not path.is_relative_to(DOCS) or not target.is_relative_to(DOCS)
        if moved and not link.is_code and target != path and uri(target) in files.src_uris:
            new = posixpath.relpath(uri(target), home) + (f"#{anchor}" if anchor else "")
            markdown = markdown.replace(f"]({link.target})", f"]({new})")
    return markdown


def linked(page: Path) -> set[Path]:
    """The files that a Markdown page links to."""
    found = links(page.read_text(encoding="utf-8"))
    return {meant(page, link)[0] for link in found if not link.is_code}


def uri(path: Path) -> str:
    """Where a file of the repository is on the site."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return f"repository/{name}" if path.suffix == ".md" else f"repository/{name}.md"


def origin(name: str) -> Path:
    """The file of the repository behind a page of the site."""
    inside = name.removeprefix("repository/")
    if inside == name:
        return DOCS / name
    return ROOT / inside if (ROOT / inside).exists() else ROOT / inside.removesuffix(".md")


def content(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    name = path.relative_to(ROOT).as_posix()
    return f"# {name}\n\n~~~~~~ {LANGUAGES.get(path.suffix, 'text')}\n{text}~~~~~~\n"


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """
    Raises:
        PluginError: the page loads a script, a style, a font or a picture from the network.
    """
    from mkdocs.exceptions import PluginError

    if outside := FOREIGN.search(output):
        raise PluginError(f"{page.file.src_uri} loads from the network: {outside[0]}")
    return output
