"""Clinical data sets' files, made up in the official files' columns; no text is a patient's."""

from __future__ import annotations

import csv
from pathlib import Path

from tasks.generation.sources import READERS, is_test

SECRET = "Zebrafish-plaintext"
"""Stands in every made text; may stand in no message."""


def write_csv(file: Path, columns: str, rows: list[list[str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns.split(","), *rows])


def make_problem_list(folder: Path) -> None:
    head = "File ID,Assessment,Summary,Subjective Sections,Objective Sections"
    write_csv(folder / "BioNLP2023-1A-Train.csv", head, [["1", "a", "b", "c", "d"]])
    head = head.replace(" Sections", "s")
    rows = [["7", f"{SECRET} man with sepsis", "sepsis; AKI", "CC: chills", "T 39.1"], ["8", "x", "", "", ""]]
    write_csv(folder / "BioNLP2023-1A-Test.csv", head, rows)


def make_all(folder: Path, training: int) -> dict[str, str]:
    """Stand-ins for all five data sets, with so many training examples each; task → folder, as under `generation.data`."""

    def texts(name: str, number: int) -> list[list[str]]:
        return [[f"{name}{i}", f"{SECRET} input {name} {i}", f"{SECRET} reference {name} {i}"] for i in range(number)]

    def sided(one_in: int, test: int) -> list[str]:
        """Units of which the hash puts so many into the test split, and the wanted number into the other."""
        sides: dict[bool, list[str]] = {True: [], False: []}
        for unit in map(str, range(10_000)):
            sides[is_test(unit, one_in)].append(unit)
        return [*sides[True][:test], *sides[False][:training]]

    places = {name: folder / name for name in READERS}
    bhc = [[f"{unit}-DS-1", f"{SECRET} note {unit}", f"{SECRET} course {unit}"] for unit in sided(100, 4)]
    write_csv(places["clinical_bhc"] / "mimic-iv-bhc.csv", "note_id,input,target", bhc)
    reports = [[unit, f"Lungs of {unit}.", f"Normal {unit}."] for unit in sided(10, 4)]
    write_csv(places["clinical_radiology"] / "indiana_reports.csv", "uid,findings,impression", reports)
    for name in ("train", "clinicalnlp_taskB_test1", "clinicalnlp_taskC_test2", "clef_taskC_test3", "valid"):
        rows = texts(name, training if name == "train" else 2)
        write_csv(places["clinical_aci_bench"] / f"{name}.csv", "encounter_id,dialogue,note", rows)
    for name, number in (
        ("TrainingSet", training), ("ValidationSet", 2), ("TestSet-1-MEDIQA-Chat-2023", 2), ("TestSet-2-MEDIQA-Sum-2023", 2)
    ):  # fmt: skip
        rows = [[key, "GENHX", reference, given] for key, given, reference in texts(name, number)]
        file = places["clinical_mts_dialog"] / f"MTS-Dialog-{name}.csv"
        write_csv(file, "ID,section_header,section_text,dialogue", rows)
    head = "File ID,Assessment,Summary,Subjective Sections,Objective Sections"
    for name, number in (("Train", training), ("Test", 2)):
        rows = [[*row, "chills", "T 39.1"] for row in texts(name, number)]
        write_csv(places["clinical_problem_list"] / f"BioNLP2023-1A-{name}.csv", head, rows)
    return {name: str(place) for name, place in places.items()}
