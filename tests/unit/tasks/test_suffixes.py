"""What drafts are taken from: the longest end of what is written that stands in a text, found as slowly as possible."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.serving.suffixes import LONGEST, SHORTEST, Alike, draft, longest, packed

TOKENS = st.lists(st.integers(0, 3) | st.sampled_from([256, 65536, 2**24]), max_size=30)
"""Few tokens, so that there is something in common; some whose bytes are those of others, shifted."""


def shared(written: list[int], text: list[int], place: int) -> int:
    """How many tokens end alike before a place, at most `LONGEST`."""
    count = 0
    while count < min(len(written), place, LONGEST) and written[-1 - count] == text[place - 1 - count]:
        count += 1
    return count


@given(TOKENS, TOKENS)
def test_the_longest_end_is_found_the_last_of_several(written: list[int], text: list[int]) -> None:
    by_place = {place: shared(written, text, place) for place in range(len(text) + 1)}
    most = max(by_place.values())
    expected = (max(place for place in by_place if by_place[place] == most), most) if most >= SHORTEST else (0, 0)
    assert longest(packed(written), packed(text)) == expected


@given(TOKENS, TOKENS, st.lists(st.integers(1, 4), max_size=30))
def test_what_is_followed_step_by_step_is_found_again(text: list[int], written: list[int], steps: list[int]) -> None:
    alike, done = Alike(packed(text)), 0
    for step in steps:
        new = min(step, len(written) - done)
        done += new
        alike.follow(packed(written[:done]))
        agrees = shared(written[:done], text, alike.next)
        begins = written[:done] == text[:done] and alike.next == done
        assert alike.shared <= agrees + SHORTEST * begins
        drafted = draft(alike.text, alike.next, alike.shared)
        assert drafted == text[alike.next : alike.next + max(0, alike.shared - 1)]


def test_a_text_that_begins_alike_is_drafted_from_at_once() -> None:
    alike = Alike(packed([7, 8, 9, 10, 11, 12]))

    def drafted(*written: int) -> list[int]:
        alike.follow(packed(written))
        return draft(alike.text, alike.next, alike.shared)

    assert drafted() == [7]
    assert drafted(7) == [8, 9]
    assert drafted(7, 8) == [9, 10, 11]
    assert drafted(7, 8, 1) == []
    assert drafted(7, 8, 1, 10, 11) == [12], "the end of what is written stands in it again"
