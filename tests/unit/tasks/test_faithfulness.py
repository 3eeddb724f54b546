"""The rules of the faithfulness signal, and the limits that its docstring states."""

from __future__ import annotations

import json

import pytest

from tasks.generation.faithfulness import faithfulness, statements
from tests.helpers.paths import DATA

DIALOGUE = """Doctor: How old are you?
Patient: I'm fifty five. It was on July twenty ninth two thousand eight. I moved here in nineteen eighty four.
Doctor: Which hip hurts?
Patient: The left. I take five hundred milligrams of metformin twice a day.
Doctor: Any fever, chills or chest pain?
Patient: No.
Doctor: You have asthma.
Patient: Yes. My blood pressure was 120/80. And five M G of prednisone."""


def unsupported(output: str, source: str = DIALOGUE) -> list[tuple[str, ...]]:
    return [(each.kind, *each.words) for each in statements(output, source) if not each.supported]


@pytest.mark.parametrize(
    "output",
    [
        "A 55-year-old patient, seen on 07/29/2008.",
        "Here since 1984.",
        "BP 120/80.",
        "Metformin 500 mg 2 times a day.",
        "Left hip pain.",
        "Denies fever, chills, or chest pain.",
        "No chest pains.",
        "Prednisone 5 mg.",
    ],
)
def test_what_the_source_says_in_other_words_is_supported(output: str) -> None:
    assert statements(output, DIALOGUE), "something was checked"
    assert unsupported(output) == []


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("A 56-year-old patient.", [("number", "56")]),
        ("Metformin 850 mg.", [("dose", "850", "mg")]),
        ("Metformin 500 mcg.", [("dose", "500", "mcg")]),
        ("Right hip pain.", [("laterality", "right", "hip", "pain")]),
        ("Bilateral hip pain.", [("laterality", "both", "hip", "pain")]),
        ("Denies asthma.", [("negation", "asthma")]),
        ("No fever or vomiting.", [("negation", "vomiting")]),
    ],
)
def test_what_it_does_not_say_is_told(output: str, expected: list[tuple[str, ...]]) -> None:
    assert unsupported(output) == expected


def test_both_sides_support_each() -> None:
    source = "Pain in both knees. The right and left shoulder are fine."
    assert unsupported("Left knee pain. Bilateral shoulders normal.", source) == []


def test_the_numbers_of_a_list_and_right_now_state_nothing() -> None:
    assert statements("1. asthma\n2. gout", "") == []
    assert statements("He is fine right now. He left him. Both are well.", "") == []


def test_counts_are_of_statements_that_differ() -> None:
    assert faithfulness("Aged 55. Aged 55. Aged 56.", DIALOGUE) == (1, 2)
    assert faithfulness("", DIALOGUE) == (0, 0)


def test_limits_that_are_stated() -> None:
    assert unsupported("No pyrexia.") == [("negation", "pyrexia")], "a synonym counts as unsupported"
    assert unsupported("Takes insulin.") == [], "what is wrong in words alone is not looked at"


MTS = DATA / "mts_dialog"


@pytest.mark.skipif(not MTS.is_dir(), reason="MTS-Dialog is not in MERGEFRONT_DATA")
def test_it_tells_a_notes_own_dialogue_from_another() -> None:
    rows = [json.loads(line) for n in (1, 2) for line in (MTS / f"test{n}.jsonl").read_text().splitlines()]

    def share(shift: int) -> float:
        pairs = zip(rows, [*rows[shift:], *rows[:shift]], strict=True)
        counts = [faithfulness(row["section_text"], other["dialogue"]) for row, other in pairs]
        return sum(supported for supported, _ in counts) / sum(checked for _, checked in counts)

    assert share(0) == pytest.approx(0.64, abs=0.005)
    assert share(7) == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("text", ["WBC 4 x 10⁹/L, area 12 cm²", "① first ② second", "thousand " * 1500, "٣ mg", "½"])
def test_any_text_can_be_checked(text: str) -> None:
    """Whatever the model writes; what it repeats from its source is supported."""
    assert unsupported(text, text) == []


def test_long_numbers_differ_in_their_last_digit() -> None:
    assert unsupported("MRN 1234567.", "MRN 1234568.") == [("number", "1234567")]
    assert unsupported("Seen on 20080729.", "Seen on 20080729.") == []
    assert unsupported("He left against medical advice.", "") == []
