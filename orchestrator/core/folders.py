"""What lies in a folder that a user names, without what systems and programs leave there."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from orchestrator.core.text import count, listed

LEFT_BEHIND = ("thumbs.db", "desktop.ini", "__macosx")
"""Names, in lower case, of what no user means; with those that begin with a dot (`._1.xml`, `.DS_Store`) or a tilde."""
UNFINISHED = (".tmp", ".part", ".crdownload", ".download", ".swp", ".bak", "~")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".bz2", ".xz", ".zst")
FORM = re.compile(r"(\.(csv|tsv|jsonl?|ndjson|parquet|arrow|txt|xml|xlsx?|ods|gz|zip|tgz|tar|bz2|xz|zst|7z|rar))+$")
"""Suffixes of the forms that a table or a set of texts comes in, packed or not."""
COPY = re.compile(r"[ _-]*(\(\d+\)|\(?\b(copy|kopie|copie|copia)\b( ?\(?\d+\)?)?\)?)(?=(\.\w+)*$)")
"""What systems add to the name of a second copy."""


def is_residue(name: str) -> bool:
    """Whether a file or folder of this name is what a system or program left behind."""
    return name.startswith((".", "~")) or name.lower() in LEFT_BEHIND or name.lower().endswith(UNFINISHED)


def visible_files(folder: Path) -> list[Path]:
    """List the files of a folder and of those below it, sorted; nothing hidden, unfinished or left behind."""
    files = (path for path in folder.rglob("*") if not any(map(is_residue, path.relative_to(folder).parts)))
    return sorted(path for path in files if path.is_file())


def plain_name(name: str) -> str:
    """Return a name without its case, the form of its letters, and what marks a copy: `Data (1).CSV` is `data.csv`."""
    return COPY.sub("", unicodedata.normalize("NFC", name).casefold()).strip()


def near_names(folder: Path, name: str) -> str:
    """Say which names in a folder are most like one that is missing: `, but 'Data.csv' is there`, or "".

    A name in other letters, a copy, a packed or unpacked form of it, or a slip of the keyboard.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if not is_residue(path.name))
    except OSError:
        return ""
    wanted = stem_of(name)
    close = [other for other in names if stem_of(other) == wanted]
    close = close or difflib.get_close_matches(name, names, n=3, cutoff=0.75)
    return f", but {_quoted(close)} {'is' if len(close) == 1 else 'are'} there" if close else ""


def contents(folder: Path, files: Iterable[Path], like: str = "") -> str:
    """Say what a folder has instead of what is looked for: its archives, or else some of its files.

    Args:
        like: a name; files whose names are more like it come first.
    """
    names = [str(file.relative_to(folder)) for file in files]
    archives = [name for name in names if name.lower().endswith(ARCHIVES)]
    if archives:
        return f"it has {_quoted(archives)}: unpack {'it' if len(archives) == 1 else 'what is meant'}"
    if not names:
        return "it has no files"
    names.sort(key=lambda name: -difflib.SequenceMatcher(None, name, like).ratio())
    return f"it has {count(len(names), 'file')}: {_quoted(names)}"


def stem_of(name: str) -> str:
    """Return the plain name without the suffixes of its form: `Data (1).CSV.gz` is `data`."""
    return FORM.sub("", plain_name(name))


def _quoted(names: list[str]) -> str:
    return listed(map(repr, names), most=4)
