"""Rating sheets: what raters get gives no recipe away, and what they send back is laid to the right one."""

from __future__ import annotations

import csv
import itertools
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.main import main
from orchestrator.recipes.recipe import find_recipe
from orchestrator.results.layout import Layout
from orchestrator.review.sheets import CRITERIA
from orchestrator.stages.open import Sweep, reopen_sweep
from tasks import demo

RECIPES = ["a", "b", "linear alpha=0.5"]

NAMES = [criterion.name for criterion in CRITERIA]

NOTES = {
    "notes.yaml": """
task: notes
custom_dataset: !function notes.load
output_type: generate_until
test_split: test
doc_to_text: "Summarise: {{findings}}"
doc_to_target: impression
generation_kwargs: {until: [], max_gen_toks: 16}
metric_list: [{metric: exact_match}]
""",
    "notes.py": """
from datasets import Dataset
def load(**_):
    rows = [{"findings": f"- finding {i}", "impression": f"- impression {i}, naïve"} for i in range(3)]
    return {"test": Dataset.from_list(rows)}
""",
}
"""A second task that generates text, with references."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, parents: dict[str, Path]) -> Iterator[Path]:
    """A finished sweep of the fake backend; ten instructions and three notes were answered with texts."""
    folder = tmp_path_factory.mktemp("review")
    for name, text in NOTES.items():
        (folder / name).write_text(text)
    content = {
        "parents": {name: {"model": str(path)} for name, path in parents.items()},
        "recipes": [{"method": "linear", "alpha": [0.5]}],
        "objectives": {
            "clinical": {"tasks": ["demo_formulary"], "limit": 4},
            "instruction": {"tasks": ["demo_instructions"], "limit": 10, "metric": "prompt_level_strict_acc"},
            "notes": {"tasks": ["notes"]},
        },
        "include_path": [str(Path(demo.__file__).parent / "lm_eval"), str(folder)],
        "dtype": "float32",
        "workers": {"backend": "fake", "block": 16, "engine": {"max_model_len": 512}},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MERGEFRONT_TRUST", str(folder))
        assert main(["run", str(folder / "sweep.yaml"), "--out", str(folder / "out")]) == 0
        yield folder / "out"


def write(
    out: Path, folder: Path, *more: str, recipes: list[str] = RECIPES, task: str = "demo_instructions"
) -> list[list[dict[str, str]]]:
    """Write sheets and read each as its rater would."""
    assert main(["review", str(out), *recipes, "--task", task, "--to", str(folder), *more]) == 0
    return [load(file) for file in sorted(folder.glob("*.csv"))]


def load(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


def save(file: Path, rows: list[dict[str, str]], delimiter: str = ",", encoding: str = "utf-8-sig") -> None:
    with file.open("w", newline="", encoding=encoding, errors="replace") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def answers(sweep: Sweep, name: str) -> set[str]:
    """What a recipe wrote."""
    known = sweep.ledger.answers(find_recipe(sweep.recipes, name).id)
    return {answer.text for answer in known.values() if answer.text is not None}


def test_sheets_are_private_and_name_no_recipe(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "above" / "sheets"
    sheets = write(finished, folder, "--sample", "5", "--raters", "3")
    said = capsys.readouterr().out
    assert "patients' too" in said and "(0700, 0600)" in said and "fake answer" not in said
    sweep = reopen_sweep(Layout(finished))
    files = {file.name: file for file in folder.iterdir()}
    assert set(files) == {"rater-1.csv", "rater-2.csv", "rater-3.csv", "rubric.txt"}
    key = next((finished / "reviews").glob("*/key.json"))
    for private in (folder.parent, folder, key.parent, key.parent.parent):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700, private
    for private in (*files.values(), key):
        assert stat.S_IMODE(private.stat().st_mode) == 0o600, private
    for file in files.values():
        text = file.read_text(encoding="utf-8-sig").lower()
        for recipe in sweep.recipes:
            assert recipe.id not in text and recipe.id[:8] not in text and recipe.label not in text
        assert not any(word in text for word in ("linear", "alpha", "parent", "merge"))
    assert files["rater-1.csv"].read_bytes().startswith(b"\xef\xbb\xbfitem,input,output,factual_accuracy,")
    assert all(f"{name}\n" in files["rubric.txt"].read_text() for name in NAMES)
    texts = [{(row["input"], row["output"]) for row in rows} for rows in sheets]
    assert texts[0] == texts[1] == texts[2] and len(texts[0]) == 15
    assert len({row["input"] for row in sheets[0]}) == 5
    for rows in sheets:
        assert all(row["input"].startswith("Write about") and not any(row[name] for name in NAMES) for row in rows)
        assert all(one["input"] != other["input"] for one, other in itertools.pairwise(rows))
    for label in RECIPES:
        assert sum(row["output"] in answers(sweep, label) for row in sheets[0]) == 5


def test_ids_and_orders_are_new_each_time_and_the_documents_are_not(finished: Path, tmp_path: Path) -> None:
    sheets = [*write(finished, tmp_path / "one"), *write(finished, tmp_path / "two")]
    ids = [row["item"] for rows in sheets for row in rows]
    assert len(ids) == len(set(ids)) == 4 * 30
    orders = [tuple(row["output"] for row in rows) for rows in sheets]
    assert len(set(orders)) == 4 and len({frozenset(order) for order in orders}) == 1
    few, more = (write(finished, tmp_path / n, "--sample", n, recipes=[r])[0] for n, r in (("3", "a"), ("6", "b")))
    assert {row["input"] for row in few} < {row["input"] for row in more}


def test_references_are_shown_if_asked(finished: Path, tmp_path: Path) -> None:
    sheets = write(finished, tmp_path / "with", "--reference", "--raters", "1", task="notes/notes")
    assert {(row["input"], row["reference"]) for row in sheets[0]} == {
        (f"Summarise: - finding {i}", f"'- impression {i}, naïve") for i in range(3)
    }
    assert "reference" not in write(finished, tmp_path / "without", task="notes")[0][0]


def test_filled_sheets_are_laid_to_their_recipes(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raters who know the answers rate a with 5, b with 2 and the merge with 3; the second is one step stricter."""
    sheets, back = write(finished, tmp_path / "sheets"), tmp_path / "back"
    sweep = reopen_sweep(Layout(finished))
    known = {text: value for label, value in zip(RECIPES, (5, 2, 3), strict=True) for text in answers(sweep, label)}
    back.mkdir()
    for rater, rows in enumerate(sheets):
        for row in rows:
            row.update(dict.fromkeys(NAMES, str(known[row["output"]] - rater)))
    sheets[1][0][NAMES[0]] = ""  # one rating that is not given
    save(back / "Dr A, final.csv", sheets[0][::-1], delimiter=";", encoding="cp1252")
    save(back / "Dr B.csv", [*sheets[1][:-1], dict.fromkeys(sheets[1][0], "")])  # and one row that is lost
    capsys.readouterr()
    assert main(["review", str(finished), "--read", str(back)]) == 0
    said = capsys.readouterr().out
    assert "rater 2: 4 of 90 ratings are missing" in said and "rater 1" not in said
    file = Path(said.rpartition("ratings: ")[2].strip())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and "fake answer" not in said + file.read_text()
    read = json.loads(file.read_text())
    assert list(read["labels"].values())[2] == "linear alpha=0.5"
    for found in read["results"]:
        a, b, merge = found["means"].values()
        assert a["documents"] == b["documents"] == merge["documents"] == 10
        assert (a["value"], b["value"], merge["value"]) == pytest.approx((4.5, 1.5, 2.5), abs=0.11)  # two ratings lack
        # Paired by rater, a missing rating shifts no difference: the raters are equally strict to both recipes.
        assert [(d["value"], d["se"]) for d in found["differences"].values()] == [(-3, 0), (-2, 0)]
        assert 28 <= found["shared"] <= 29


def read_error(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["review", str(finished), "--read", str(folder)]) == 2
    return capsys.readouterr().err


def test_wrong_sheets(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sheets"
    (rows,) = write(finished, folder, "--raters", "1", "--sample", "2")
    file = folder / "rater-1.csv"
    assert "no rating is filled in yet" in read_error(finished, folder, capsys)
    for wrong in ("0", "6", "3.5", "good", "²", "secret of a patient"):
        rows[1]["hallucination"] = wrong
        save(file, rows)
        said = read_error(finished, folder, capsys)
        assert f"{file}, row 3, column hallucination: is none of 1, 2, 3, 4, 5" in said
        assert "secret" not in said
    rows[1]["hallucination"] = " 4.0 "
    save(file, rows)
    assert main(["review", str(finished), "--read", str(folder)]) == 0
    save(file, rows, delimiter="\t", encoding="utf-16")  # a spreadsheet's Unicode text
    assert main(["review", str(finished), "--read", str(folder)]) == 0
    written = ",".join(rows[0])
    file.write_text(f"{written}\n{rows[0]['item']},secret, with commas,2,3,4,5,\n")
    assert "rater-1.csv, row 2: has more cells than the first row; save the sheet" in read_error(
        finished, folder, capsys
    )
    file.write_text(f'{written}\n{rows[0]["item"]},"secret\n')
    assert "rater-1.csv, row 2: is not valid CSV" in read_error(finished, folder, capsys)
    file.write_text(f"{written},item\n")
    assert "has the column 'item' twice" in read_error(finished, folder, capsys)

    save(file, rows)
    save(folder / "copy.csv", rows)
    assert f"{file}, row 2, column item: is also in {folder / 'copy.csv'}, row 2" in read_error(
        finished, folder, capsys
    )
    (folder / "copy.csv").write_text("name,value\nx,1\n")
    assert "copy.csv: has no column 'item' in its first row" in read_error(finished, folder, capsys)
    (folder / "copy.csv").write_text("")
    assert "copy.csv: has no column 'item' in its first row" in read_error(finished, folder, capsys)
    (folder / "copy.csv").unlink()
    save(file, [*rows, {**rows[0], "item": "secret"}])
    said = read_error(finished, folder, capsys)
    assert f"row {len(rows) + 2}, column item: is no item of this review" in said and "secret" not in said
    save(file, [{**row, "item": "secret"} for row in rows])
    assert "no sheet there was written from" in read_error(finished, folder, capsys)
    assert "has no .csv" in read_error(finished, tmp_path / "nowhere", capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "c", "--to", "NEW", "--task", "notes"], "'c' is no recipe of this sweep"),
        (["--to", "NEW"], "names no recipe"),
        (["a", "--to", "OLD"], "exists already; name a folder that does not"),
        (["a", "--to", "NEW", "--task", "demo_formulary"], "is no task of this sweep that generates text"),
        (
            ["a", "--to", "NEW", "--task", "instruction/demo_instruction"],
            "did you mean 'instruction/demo_instructions'?",
        ),
        (["a", "--to", "NEW"], "name one of: instruction/demo_instructions, notes/notes"),
        (
            ["a", "--to", "NEW", "--task", "demo_instructions", "--reference"],
            "demo_instructions has no reference texts",
        ),
        (["a", "--read", "OLD"], "--read: takes no recipes"),
    ],
)
def test_wrong_arguments(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "old").mkdir()
    places = {"OLD": str(tmp_path / "old"), "NEW": str(tmp_path / "new")}
    assert main(["review", str(finished), *(places.get(word, word) for word in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
