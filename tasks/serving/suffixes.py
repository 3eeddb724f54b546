"""Drafts of a text that is being written, taken from texts that are expected to be alike.

Where the end of what is written stands in such a text, what came next there often comes next here. The longer the
stretch that they share, the longer the draft (as in SuffixDecoding, arXiv 2411.04975). A draft decides nothing: the
engine checks each of its tokens against the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHORTEST = 2
"""Fewest tokens at the end of what is written that have to stand in the other text."""
LONGEST = 17
"""Most tokens that are compared. A draft has one token less than is shared."""
LOOK = 64
"""Most places of a text that are compared, the last ones first: long prompts repeat common pairs of tokens often."""
TOKEN_BYTES = 4
"""Texts are searched as bytes, int32 as in vLLM: nothing in Python is as fast."""


def packed(tokens: Sequence[int]) -> bytes:
    """Return token ids as the bytes of an int32 array."""
    return np.asarray(tokens, dtype=np.int32).tobytes()


class Alike:
    """A text that is expected to be like the one being written, and where the two agree.

    Args:
        text: token ids (`packed`).
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.next = 0
        """Place of the token that is expected next."""
        self.shared = SHORTEST
        """Tokens before it that both texts share, at most `LONGEST`; that both begin counts as `SHORTEST`."""
        self._seen = 0

    def follow(self, written: bytes) -> None:
        """Find where the text agrees with what is written now.

        Args:
            written: all tokens so far (`packed`), which begin with those of the last call.
        """
        added, self._seen = written[self._seen :], len(written)
        start, new = self.next * TOKEN_BYTES, len(added) // TOKEN_BYTES
        if self.shared and self.text[start : start + len(added)] == added:
            self.next, self.shared = self.next + new, min(LONGEST, self.shared + new)
        else:
            self.next, self.shared = longest(written, self.text)


def draft(text: bytes, place: int, shared: int) -> list[int]:
    """Return the tokens that are expected next: of a text from a place on, the fewer the less is shared before it."""
    tokens: list[int] = np.frombuffer(text, dtype=np.int32)[place : place + max(0, shared - 1)].tolist()
    return tokens


def longest(written: bytes, text: bytes, end: int | None = None) -> tuple[int, int]:
    """Find the longest end of what is written that stands in a text; of equals, the last.

    Args:
        end: number of tokens of the text that are searched; None for all.

    Returns:
        The place after it in the text, and how many tokens it has: 0 where it has fewer than `SHORTEST`.
    """
    part = written[-SHORTEST * TOKEN_BYTES :]
    place, shared, limit = 0, 0, len(text) if end is None else end * TOKEN_BYTES
    left = LOOK * (len(part) == SHORTEST * TOKEN_BYTES)
    while left and (start := text.rfind(part, 0, limit)) >= 0:
        if start % TOKEN_BYTES == 0:
            left -= 1
            stop = start + len(part)
            same = _common_end(written, text, stop)
            if same > shared:
                place, shared = stop // TOKEN_BYTES, same
        limit = start + len(part) - 1
    return place, shared


def _common_end(one: bytes, other: bytes, end: int) -> int:
    """Count the tokens in which a text, and the first `end` bytes of another, end alike; at most `LONGEST`."""
    count, most = SHORTEST, min(len(one), end, LONGEST * TOKEN_BYTES) // TOKEN_BYTES

    def before(text: bytes, stop: int) -> bytes:
        return text[stop - (count + 1) * TOKEN_BYTES : stop - count * TOKEN_BYTES]

    while count < most and before(one, len(one)) == before(other, end):
        count += 1
    return count
