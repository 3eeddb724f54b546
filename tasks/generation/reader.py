"""Finding and reading the files of a data set's folder.

An error names the file, the column and the row, never the content: this is clinical text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from orchestrator.core.errors import UserError
from orchestrator.core.folders import contents, near_names, plain_name, stem_of, visible_files
from orchestrator.core.row import Row
from orchestrator.core.rows import read_rows
from orchestrator.core.text import count, listed
from orchestrator.core.user_file import UserFile

Columns = dict[str, tuple[str, ...]]
"""Field → the names that its column has in the files, the official one first. The field `id` is an id, others are
texts."""


@dataclass(frozen=True)
class Reader:
    """One folder, its task, and where the data set is available."""

    task: str
    folder: Path
    origin: str
    remarks: list[str] = field(default_factory=list, compare=False)
    """What a reader of the scores must know about the files that were read."""

    def check_folder(self) -> None:
        """Refuse a folder that does not exist; raises UserError."""
        if self.folder.is_file():
            raise self.wrong("is a file; name its folder, unpacked if it is an archive")
        if not self.folder.is_dir():
            near = near_names(self.folder.parent, self.folder.name)
            raise self.missing(f"there is no such folder{near}")

    def find(self, *names: str) -> Path:
        """Find the file that has one of these names, gzipped or not, in the folder or anywhere below it.

        Raises:
            UserError: there is none, or several.
        """
        found = self.find_any(*names)
        if found is None:
            raise self.missing(f"the file {names[0]} is not there{self._instead(names)}")
        return found

    def find_any(self, *names: str) -> Path | None:
        """Find as `find`; None where there is no such file."""
        accepted = {f"{name}{packed}" for name in names for packed in ("", ".gz")}
        files = self._files()
        found = [file for file in files if file.name in accepted]
        if len({file.name for file in found}) > 1:
            raise self._several(found)
        found = [file for file in found if file.parent == self.folder] or found
        if len(found) > 1:
            raise self.wrong(
                f"{found[0].name} exists there {len(found)} times, first in {found[0].parent}; name the folder that is "
                "meant"
            )
        for file in found:
            alike = {plain_name(name) for name in accepted}
            copies = [other for other in files if other.parent == file.parent and plain_name(other.name) in alike]
            if len(copies) > 1:
                raise self._several(copies)
        return found[0] if found else None

    def documents(self, suffix: str) -> list[Path]:
        """List the files with this suffix (`.xml`) in the folder and below it.

        Raises:
            UserError: one is there twice, the second with a name that marks a copy.
        """
        files = [file for file in self._files() if file.suffix.lower() == suffix]
        first: dict[Path, Path] = {}
        for file in files:
            other = first.setdefault(file.with_name(plain_name(file.name)), file)
            if other != file:
                raise self._several([other, file])
        return files

    def parse_xml(self, file: Path) -> Element:
        """Parse an XML file; raises UserError where it is none, or cannot be read."""
        try:
            return ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            raise self.wrong(f"{file} is not valid XML (line {error.position[0]}); get it again") from None
        except (OSError, ValueError, LookupError) as error:
            raise self.wrong(f"{file} cannot be read ({type(error).__name__}); get it again") from None

    def rows(
        self, file: Path, columns: Columns, published: int | None = None, spelling: Callable[[str], str] = str
    ) -> Iterator[dict[str, str]]:
        """Yield the fields of a file's rows; a text that is missing is empty.

        Args:
            spelling: gives an id as the authors spell it.
            published: rows that the file has as its authors published it; another number is a remark.

        Raises:
            UserError: a column is missing, a row is broken, an id is there twice, or the file is cut off.
        """
        names: dict[str, str] = {}
        first: dict[str, str] = {}
        number = 0
        for row in read_rows(self.file(file)):
            number += 1
            names = names or self._names(row, columns)
            for name in names.values():
                if name not in row.values:
                    raise row.wrong(f"has no {name!r}, which the rows before it have")
            values = {f: spelling(row.ident(n)) if f == "id" else row.text(n).strip() for f, n in names.items()}
            if "id" in values and (other := first.setdefault(values["id"], row.place)) != row.place:
                raise row.wrong(f"has the {names['id']!r} of {other}: perhaps the file was loaded twice; get it again")
            yield values
        if not names:
            raise self.missing(f"{file} has no rows")
        self.count(file.name, "row", number, published)

    def count(self, what: str, noun: str, found: int, published: int | None) -> None:
        """Remark that there are not as many as were published."""
        remark = (
            f"{self.task}: {what} has {count(found, noun)}, but its authors published {published}; if it was cut off "
            f"or changed on the way, get it again from {self.origin}."
        )
        if found != published is not None and remark not in self.remarks:
            self.remarks.append(remark)

    def file(self, path: Path) -> UserFile:
        """Return one of the folder's files, to be read as rows."""
        return UserFile(path, f"generation.data.{self.task}")

    def wrong(self, what: str) -> UserError:
        """Make an error about the folder."""
        return UserError(f"generation.data.{self.task} ({self.folder}): {what}")

    def missing(self, what: str) -> UserError:
        """Make an error about what is not in the folder; it names the place where the data set is available."""
        return self.wrong(f"{what}; the data set is available from {self.origin}")

    def _files(self) -> list[Path]:
        return visible_files(self.folder)

    def _instead(self, names: Sequence[str]) -> str:
        files = self._files()
        stems = {stem_of(name) for name in names}
        alike = [str(file.relative_to(self.folder)) for file in files if stem_of(file.name) in stems]
        if alike:
            return f", but {listed(map(repr, alike), most=4)} is: rename, unpack or save it in this form"
        return f"; {contents(self.folder, files, like=names[0])}"

    def _several(self, files: list[Path]) -> UserError:
        names = listed((str(file.relative_to(self.folder)) for file in files), most=4)
        return self.wrong(f"has {names}, which are forms or versions of one file; keep the one that is meant")

    def _names(self, row: Row, columns: Columns) -> dict[str, str]:
        found = {}
        for key, names in columns.items():
            known = [name for name in names if name in row.values]
            if not known:
                # The message leaves out what it has instead: without a header, that would be a patient's note.
                other = [name for name in row.values if name.casefold() == names[0].casefold()]
                near = f", but {other[0]!r}: rename it" if other else ""
                raise self.missing(f"the first line of {row.file.path} names no column {names[0]!r}{near}")
            found[key] = known[0]
        return found


def text_of(element: Element | None) -> str:
    """Return an XML element's text, with that of the elements in it; "" for none."""
    return "" if element is None else "".join(element.itertext()).strip()
