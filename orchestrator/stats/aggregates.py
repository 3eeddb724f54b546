"""Aggregations over documents that are functions of sums and no means: corpus BLEU, a calibration error, a distance.

A document's influence on such a value is the jackknife's (Efron 1982). As sums are cheap to take one document out of,
it is exact, however many documents there are, and the parts of a value that mixes several metrics lose the same
document.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.stats.estimates import Floats


@dataclass(frozen=True)
class OfSums:
    """A value that is a function of the sums of what documents contribute."""

    function: Callable[[Floats], float]
    """Takes the sums; shape (parts,)."""

    def __call__(self, items: Sequence[Sequence[float]] | Floats) -> float:
        """Compute the value over all documents.

        Args:
            items: what each document contributes; shape (documents, parts).
        """
        return float(self.function(np.asarray(items, float).sum(axis=0)))

    def influence(self, items: Sequence[Sequence[float]] | Floats) -> Floats:
        """Compute each document's influence on the value, with mean zero; shape (documents,); 0 for one document."""
        parts = np.asarray(items, float)
        n = len(parts)
        if n < 2:
            return np.zeros(n)
        without = np.array([self.function(sums) for sums in parts.sum(axis=0) - parts])
        return np.asarray((n - 1) * (without.mean() - without))
