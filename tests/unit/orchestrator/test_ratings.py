"""Krippendorff's alpha, and the errors of a comparison."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.review.ratings import Rating, krippendorff_alpha, result
from orchestrator.review.sheets import CRITERIA

NAMES = [criterion.name for criterion in CRITERIA]


def test_krippendorffs_own_example() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011): four observers, twelve units, gaps; ordinal alpha = 0.815."""
    observers = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    units = [[int(value) for value in unit if value != "."] for unit in zip(*observers, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.815, abs=5e-4)


def test_alpha_by_hand() -> None:
    """Units (1, 1), (1, 2), (3, 3): n = 6; n1 = 3, n2 = 1, n3 = 2. Ordinal distances: 1-2: (3 + 1 - 2)² = 4;
    2-3: (1 + 2 - 1.5)² = 2.25; 1-3: (3 + 1 + 2 - 2.5)² = 12.25. Observed: 2·4 = 8; by chance
    2·(3·1·4 + 1·2·2.25 + 3·2·12.25) = 180. alpha = 1 - 5·8/180 = 7/9."""
    assert krippendorff_alpha([[1, 1], [1, 2], [3, 3]]) == pytest.approx(7 / 9)


values = st.integers(1, 5)

units = st.lists(st.lists(values, max_size=4), max_size=12)


@given(st.lists(st.tuples(values, st.integers(2, 4)), max_size=12))
def test_identical_ratings_agree(rated: list[tuple[int, int]]) -> None:
    alpha = krippendorff_alpha([[value] * raters for value, raters in rated])
    assert alpha == (pytest.approx(1) if len({value for value, _ in rated}) > 1 else None)


@given(units, st.randoms(use_true_random=False))
def test_who_rates_and_in_which_order_does_not_matter(rated: list[list[int]], rng: random.Random) -> None:
    mixed = [rng.sample(unit, len(unit)) for unit in rng.sample(rated, len(rated))]
    alpha = krippendorff_alpha(rated)
    assert krippendorff_alpha(mixed) == (None if alpha is None else pytest.approx(alpha))
    # The ranks count and not the numbers; and turned round, the scale is as good.
    for other in (lambda v: v**3, lambda v: -v):
        assert krippendorff_alpha([[other(v) for v in unit] for unit in rated]) == (
            None if alpha is None else pytest.approx(alpha)
        )


@given(units)
def test_alpha_is_its_definition(rated: list[list[int]]) -> None:
    """1 - observed / expected disagreement, pair by pair of ratings."""
    pairable = [unit for unit in rated if len(unit) > 1]
    pool = [value for unit in pairable for value in unit]
    n = Counter(pool)

    def distance(c: int, k: int) -> float:
        low, high = min(c, k), max(c, k)
        return (sum(n[g] for g in range(low, high + 1)) - (n[c] + n[k]) / 2) ** 2

    observed = sum(distance(c, k) / (len(u) - 1) for u in pairable for c, k in itertools.permutations(u, 2))
    expected = sum(distance(c, k) for c, k in itertools.permutations(pool, 2))
    alpha = krippendorff_alpha(rated)
    if expected == 0:
        assert alpha is None
    else:
        assert alpha == pytest.approx(1 - observed * (len(pool) - 1) / expected)


def test_errors_are_over_documents_and_pairs_within_a_rater() -> None:
    def rated(recipe: str, *cells: tuple[int, int, int]) -> list[Rating]:
        return [Rating(rater, document, (recipe,), "c", value) for rater, document, value in cells]

    a = rated("a", (1, 0, 1), (2, 0, 3), (1, 1, 5), (2, 1, 5), (1, 2, 2))
    b = rated("b", (1, 0, 2), (2, 0, 4), (1, 1, 5), (2, 2, 5))
    both = [Rating(1, 3, ("a", "b"), "c", 4), Rating(2, 3, ("a", "b"), "c", 3)]
    found = result("c", [*a, *b, *both], ["a", "b"])
    mean = found.means["a"]  # documents 2, 5, 2, 3.5
    assert (mean.value, mean.documents) == (3.125, 4)
    assert mean.se == pytest.approx((((2 - 3.125) ** 2 * 2 + (5 - 3.125) ** 2 + 0.375**2) / 3 / 4) ** 0.5)
    difference = found.differences["b"]  # documents 1, 0, 0; of document 2 no rater has rated both
    assert (difference.value, difference.se, difference.documents) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 3)
    assert found.shared == 4
    nothing = result("c", a, ["a", "b"])
    assert (nothing.means["b"].value, nothing.differences["b"].se, nothing.shared) == (None, None, 2)
