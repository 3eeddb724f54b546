"""The generation tasks' data sets, read from the files that their authors publish.

A folder is given by the user: two of the sets are credentialed, and none is on a hub in its official form. Everything
stays in memory; no cache of it is written anywhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config.generation import Generation
from orchestrator.core.errors import UserError, hint
from orchestrator.core.text import count
from tasks.benchmarks.questions import plain
from tasks.generation.reader import Columns, Reader, text_of


@dataclass(frozen=True)
class Example:
    """An input and its reference text."""

    id: str
    input: str
    reference: str
    section: str = ""
    """MTS-Dialog: the section's title."""
    others: tuple[str, ...] = ()
    """Further reference texts. Answers are compared with all of them; only the first is learned from."""
    weight: float = 1.0
    """As an example to learn from, how much its loss counts, in [0, 1]: less than 1 for a weak label."""


Read = Callable[[], Iterable[Example]]


@dataclass(frozen=True)
class Examples:
    """The splits of a data set."""

    test: list[Example]
    incomplete: int
    """Rows of the test split that lack the input or the reference, and are left out."""
    in_training: tuple[str, ...] = ()
    """Ids of the examples whose input is also in the training split; case, spaces and punctuation do not count."""
    validation: list[Example] = dataclasses.field(default_factory=list)
    """The examples to search on, where the data set has a split for them."""
    read_training: Read = dataclasses.field(default=tuple, compare=False)
    """Reads the training split from its files: it may be large, and only fine-tuning needs it."""
    remarks: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    """What a reader of the scores must know about the files."""

    def training(self) -> list[Example]:
        """Read the examples to learn from: complete, and none whose input is also a test example's."""
        known = {plain(example.input) for example in self.test}
        complete = (example for example in self.read_training() if example.input and example.reference)
        return [example for example in complete if plain(example.input) not in known]


def make_examples(
    test: Iterable[Example], train: Read = tuple, validation: Iterable[Example] = (), check: bool = True
) -> Examples:
    """Put the complete examples of a data set's splits together.

    Args:
        train: reads the training split.
        check: whether to look for the other splits' inputs there.
    """
    rows = list(test)
    complete, spare = ([row for row in part if row.input and row.reference] for part in (rows, validation))
    known = {plain(example.input) for example in train()} if check else set()
    again = tuple(row.id for row in (*complete, *spare) if plain(row.input) in known)
    return Examples(complete, len(rows) - len(complete), again, spare, train)


def _example(row: Mapping[str, str]) -> Example:
    return Example(row["id"], row["input"], row["reference"])


def is_test(unit: str, one_in: int) -> bool:
    """Whether a patient or report is in the test split, for data sets without splits.

    A hash decides, so that it is the same on every machine.
    """
    return int.from_bytes(hashlib.sha256(unit.encode()).digest()[:8], "big") % one_in == 0


# -------------------------------------------------------------------- the five data sets
def brief_hospital_course(reader: Reader) -> Examples:
    """Read MIMIC-IV-Ext-BHC: one file without splits; every hundredth patient is test."""
    file = reader.find("mimic-iv-bhc.csv")
    columns: Columns = {"id": ("note_id",), "input": ("input",), "reference": ("target",)}

    def examples(test: bool) -> Iterator[Example]:
        rows = reader.rows(file, columns, published=270_033)
        return (_example(row) for row in rows if is_test(row["id"].split("-")[0], one_in=100) == test)

    # Gigabytes, and no patient is in both splits: the training split is not read only to look for test examples.
    return make_examples(examples(True), lambda: examples(False), check=False)


def radiology(reader: Reader) -> Examples:
    """Read IU X-ray: the collection's XML reports, or its CSV; without splits; every tenth report is test."""
    reports, table = reader.documents(".xml"), reader.find_any("indiana_reports.csv")
    columns: Columns = {"id": ("uid",), "input": ("findings",), "reference": ("impression",)}
    if reports and table:
        raise reader.wrong(
            f"has the data set in two forms, {table.name} and {count(len(reports), 'XML report')} (first in "
            f"{reports[0].parent}); keep the one that is meant, or name its folder"
        )

    def rows() -> Iterable[dict[str, str]]:
        if reports:
            return _openi(reader, reports)
        return reader.rows(table or reader.find("indiana_reports.csv"), columns, published=3851, spelling=_uid)

    def examples(test: bool) -> Iterator[Example]:
        return (_example(row) for row in rows() if is_test(row["id"], one_in=10) == test)

    return make_examples(examples(True), lambda: examples(False))


def _uid(text: str) -> str:
    """A report's number as the collection's CSV has it: CXR1 and 001 are 1."""
    number = text.strip().upper().removeprefix("CXR")
    return str(int(number)) if number.isascii() and number.isdigit() else number


def _openi(reader: Reader, files: Sequence[Path]) -> Iterator[dict[str, str]]:
    first: dict[str, Path] = {}
    for file in files:
        root = reader.parse_xml(file)
        uid = root.find(".//uId")
        parts = [((part.get("Label") or "").upper(), text_of(part)) for part in root.iter("AbstractText")]
        found, impression = ([text for label, text in parts if label == name] for name in ("FINDINGS", "IMPRESSION"))
        if uid is None or len(found) != 1 or len(impression) != 1:
            lacks = "uId" if uid is None else 'AbstractText Label="FINDINGS" or "IMPRESSION"'
            raise reader.wrong(f"{file} does not have one {lacks}; take it out if it is no report of the collection")
        name = _uid(uid.get("id", ""))
        other = first.setdefault(name, file)
        if other != file:
            raise reader.wrong(f"{file} is the report of {other} again; keep one of them")
        yield {"id": name, "input": found[0], "reference": impression[0]}
    reader.count("the folder", "XML report", len(files), published=3955)


def aci_bench(reader: Reader) -> Examples:
    """Read ACI-Bench: all three test sets of the challenges; its validation set to search on."""
    columns: Columns = {"id": ("encounter_id",), "input": ("dialogue",), "reference": ("note",)}
    tests = ("clinicalnlp_taskB_test1.csv", "clinicalnlp_taskC_test2.csv", "clef_taskC_test3.csv")

    def examples(published: int, *names: str) -> Iterator[Example]:
        return (_example(row) for name in names for row in reader.rows(reader.find(name), columns, published))

    return make_examples(examples(40, *tests), lambda: examples(67, "train.csv"), examples(20, "valid.csv"))


SECTIONS = {
    "FAM/SOCHX": "family history and social history", "GENHX": "history of present illness",
    "PASTMEDICALHX": "past medical history", "CC": "chief complaint", "PASTSURGICAL": "past surgical history",
    "ROS": "review of systems", "EDCOURSE": "emergency department course", "GYNHX": "gynecologic history",
    "OTHER_HISTORY": "other history",
}  # fmt: skip
"""MTS-Dialog's headers as its authors spell them out; the others are words already."""


def mts_dialog(reader: Reader) -> Examples:
    """Read MTS-Dialog: both test sets; its validation set to search on."""
    columns: Columns = {
        "id": ("ID",), "section": ("section_header",), "reference": ("section_text",), "input": ("dialogue",)
    }  # fmt: skip
    tests = {
        "test1": ("MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv", "test1.jsonl"),
        "test2": ("MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv", "test2.jsonl"),
    }

    def examples(name: str, published: int, *files: str) -> Iterator[Example]:
        for row in reader.rows(reader.find(*files), columns, published):
            yield Example(f"{name}-{row['id']}", row["input"], row["reference"], _title(row["section"]))

    return make_examples(
        (example for name, files in tests.items() for example in examples(name, 200, *files)),
        lambda: examples("train", 1201, "MTS-Dialog-TrainingSet.csv", "train.jsonl"),
        examples("validation", 100, "MTS-Dialog-ValidationSet.csv", "validation.jsonl"),
    )


def _title(header: str) -> str:
    return SECTIONS.get(header.upper(), header.lower())


def problem_list(reader: Reader) -> Examples:
    """Read BioNLP 2023 ProbSum, whose test file names two columns differently from its training file."""
    columns: Columns = {
        "id": ("File ID",), "assessment": ("Assessment",), "reference": ("Summary",),
        "subjective": ("Subjective Sections", "Subjectives"), "objective": ("Objective Sections", "Objectives"),
    }  # fmt: skip

    def examples(file: str, published: int) -> Iterator[Example]:
        for row in reader.rows(reader.find(file), columns, published):
            parts = {title: row[title] for title in ("assessment", "subjective", "objective") if row[title]}
            note = "\n\n".join(f"{title.capitalize()}:\n{text}" for title, text in parts.items())
            yield Example(row["id"], note if row["assessment"] else "", row["reference"])

    return make_examples(examples("BioNLP2023-1A-Test.csv", 237), lambda: examples("BioNLP2023-1A-Train.csv", 768))


FILES = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.yaml"))}
READERS: dict[str, Callable[[Reader], Examples]] = {
    "clinical_bhc": brief_hospital_course,
    "clinical_radiology": radiology,
    "clinical_aci_bench": aci_bench,
    "clinical_mts_dialog": mts_dialog,
    "clinical_problem_list": problem_list,
}


def read_published(name: str, folder: Path, origin: str) -> Examples:
    """Read one of the five data sets from its folder.

    Raises:
        UserError: there is no such folder, a file is missing or broken, or no test example is complete.
    """
    reader = Reader(name, folder, origin)
    reader.check_folder()
    examples = READERS[name](reader)
    if not examples.test:
        raise reader.missing("no example of the test split is complete")
    return dataclasses.replace(examples, remarks=tuple(reader.remarks))


def knows(name: str, generation: Generation | None) -> bool:
    """Whether a task is a generation task, mergefront's or the sweep's own."""
    return name in FILES or (generation is not None and name in generation.own)


def check_names(generation: Generation | None) -> None:
    """Refuse names under `generation` that are unknown or taken.

    Raises:
        UserError: a key of generation names no task, or a task of the user's own has a name that is taken.
    """
    for name in generation.data if generation else ():
        if name not in FILES:
            raise UserError(f"generation.data.{name}: no such task{hint(name, FILES)} (it has: {', '.join(FILES)})")
    for name in generation.own if generation else ():
        if name in FILES:
            raise UserError(f"generation.own.{name}: mergefront has a task of this name; choose another")
