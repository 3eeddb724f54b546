"""Rating sheets: their order, and the texts in them."""

from __future__ import annotations

import csv
import io
import itertools
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.review.sheets import CELL, Output, apart, sheet

outputs = st.lists(st.integers(0, 6), max_size=30).map(
    lambda documents: [Output(document, (f"r{i}",), f"text {i}") for i, document in enumerate(documents)]
)


@given(outputs, st.integers())
def test_an_order_is_a_permutation_that_keeps_documents_apart(items: list[Output], seed: int) -> None:
    order = apart(items, random.Random(seed))
    assert sorted(order, key=items.index) == items
    most = max(Counter(output.document for output in items).values(), default=0)
    if most <= (len(items) + 1) // 2:  # else no order can
        assert all(one.document != other.document for one, other in itertools.pairwise(order))


def test_every_recipe_comes_first_equally_often() -> None:
    items = [Output(document, (recipe,), recipe) for recipe in "abc" for document in range(4)]
    first = Counter(apart(items, random.Random(seed))[0].text for seed in range(3000))
    assert all(abs(first[recipe] - 1000) < 150 for recipe in "abc")  # 5.8 standard deviations


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=5))
def test_a_sheet_holds_the_texts_and_no_formula(texts: list[str]) -> None:
    rows = {f"id{i}": Output(i, ("r",), text) for i, text in enumerate(texts)}
    data = sheet(rows, {"input": dict(enumerate(texts))}).decode("utf-8-sig")
    found = list(csv.reader(io.StringIO(data, newline="")))
    for text, (item, shown, output, *empty) in zip(texts, found[1:], strict=True):
        assert shown in (text, f"'{text}") and not shown.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert output in ((text, f"'{text}") if text else ("[the output is empty]",))
        assert item and empty == [""] * 3


def test_a_text_that_is_longer_than_a_cell_goes_on_in_the_next() -> None:
    long = "x" * CELL + "-y" * 10
    data = sheet({"i": Output(0, ("r",), long), "j": Output(1, ("r",), "short")}, {}).decode("utf-8-sig")
    header, first, second = csv.reader(data.splitlines())
    assert header[:3] == ["item", "output", "output (2)"]
    assert first[1] + first[2].removeprefix("'") == long
    assert second[1:3] == ["short", ""]
