"""Numbers, amounts and lists as text."""

from __future__ import annotations

import pytest

from orchestrator.core.text import count, duration, gigabytes, listed, one_line


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.0 s"),
        (0.26, "0.3 s"),
        (119.9, "119.9 s"),
        (120, "2.0 min"),
        (750, "12.5 min"),
        (7200, "2.0 h"),
        (36 * 3600, "36.0 h"),
        (2 * 86400, "2.0 d"),
        (10 * 86400 + 8640, "10.1 d"),
    ],
)
def test_a_duration_is_in_a_unit_that_a_person_reads(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_bytes_are_in_powers_of_ten() -> None:
    assert [gigabytes(0), gigabytes(1e9), gigabytes(16.06e9)] == ["0.0 GB", "1.0 GB", "16.1 GB"]


def test_a_noun_agrees_with_its_number() -> None:
    assert [count(n, "recipe") for n in (0, 1, 2)] == ["0 recipes", "1 recipe", "2 recipes"]


def test_names_are_listed_as_in_a_sentence_and_many_are_counted() -> None:
    assert [listed([]), listed(["a"]), listed(["a", "b"])] == ["", "a", "a and b"]
    assert listed(iter("abc")) == "a, b and c"
    assert listed(map(str, range(15))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more"
    assert listed("abc", most=2) == "a, b and 1 more"


def test_an_error_of_several_lines_becomes_one() -> None:
    assert one_line(ValueError("first\n   second\tthird ")) == "first second third"
    assert one_line(ValueError("x" * 600)) == "x" * 500
    assert one_line(ValueError()) == "ValueError"
    assert one_line("") == ""
