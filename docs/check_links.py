"""Whether everything that the documentation points to in this repository is there.

    python docs/check_links.py

Looked at are README.md and the other pages beside it, benchmarks/RESULTS.md and docs/*.md: every relative link and
picture with its anchor, and every path of a file or folder that stands in `code`. Addresses on the network are left
alone. The exit status is 1 where something is missing; each is named with its line.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:")
CODE = re.compile(r"(orchestrator|tasks|tune|cluster|mergefront|tests|docs|examples|benchmarks|requirements)/[\w./-]*")
"""A path from the root of the repository, as it stands in `code`."""


class Link(NamedTuple):
    line: int
    target: str
    is_code: bool
    """A path in `code`, which is meant from the root; a link is meant from its page."""


def pages(root: Path = ROOT) -> list[Path]:
    """The documentation, in the repository and on the site."""
    return [*sorted(root.glob("*.md")), *sorted(root.glob("benchmarks/*.md")), *sorted(root.glob("docs/*.md"))]


def links(text: str) -> Iterator[Link]:
    """What a page points to, code blocks left out."""
    for block in _parsed(text):
        line = block.map[0] + 1 if block.map else 0
        for token in block.children or ():
            if token.type == "code_inline" and CODE.fullmatch(token.content):
                yield Link(line, token.content, True)
            target = token.attrGet("href") or token.attrGet("src")
            if target and not ADDRESS.match(str(target)):
                yield Link(line, unquote(str(target)), False)


def anchors(text: str) -> set[str]:
    """Of a page's headings, as GitHub and MkDocs both make them; a second one of the same name gets a number."""
    seen, found = Counter[str](), set()
    for before, token in pairwise(_parsed(text)):
        if before.type == "heading_open":
            words = "".join(child.content for child in token.children or ())
            name = re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", words.lower()).strip())
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


@cache
def _parsed(text: str) -> tuple[Token, ...]:
    return tuple(MarkdownIt("commonmark").enable("table").parse(text))


def meant(page: Path, link: Link, root: Path = ROOT) -> tuple[Path, str]:
    """The file or folder that a link of a page means, and the anchor in it."""
    path, _, anchor = link.target.partition("#")
    start = root if link.is_code else page.parent
    return (start / path).resolve() if path else page, anchor


def problems(root: Path = ROOT) -> list[str]:
    """What is missing, a line each."""
    found = []
    for page in pages(root):
        for link in links(page.read_text(encoding="utf-8")):
            path, anchor = meant(page, link, root)
            where = f"{page.relative_to(root)}, line {link.line}: {link.target}"
            if not path.is_relative_to(root):
                found.append(f"{where} leads out of the repository")
            elif not path.exists():
                found.append(f"{where} is not there")
            elif anchor and (path.suffix != ".md" or anchor not in anchors(path.read_text(encoding="utf-8"))):
                found.append(f"{where} has no such heading")
    return found


def main() -> int:
    found = problems()
    for line in found:
        print(line, file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
