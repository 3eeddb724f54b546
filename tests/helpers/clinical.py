"""Clinical data sets' files, made up in the official files' columns; no text is a patient's."""

from __future__ import annotations

import csv
from pathlib import Path

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
