"""Metric values of generated texts, kept in a file of numbers under hashes, so that none is computed twice."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from orchestrator.core.files import make_private
from tasks.generation.metrics import GROUPS, STEMMED, OpenEncoder, Reference, Values, measure

VERSION = 2
"""Version of the metrics: raised with every change of a value, so that stored values are computed again."""
LIBRARIES = ("bert-score", "nltk", "rouge-score", "sacrebleu")


@lru_cache(maxsize=1)
def _versions() -> list[str]:
    """Versions of the libraries that define the metrics."""
    return [importlib.metadata.version(name) for name in LIBRARIES]


class Measured:
    """Metric values that were computed before, so that `report` and a resumed sweep compute none twice.

    Of a text whose stored values lack some (they were stored by an earlier version, or without stemming), only those
    are computed.

    Args:
        folder: created if missing, readable by its owner only; None keeps them for this process alone.
        encoder: BERTScore's; None leaves it out.
        stemming: whether ROUGE compares stems.
    """

    def __init__(
        self, folder: Path | None = None, encoder: OpenEncoder | None = None, *, stemming: bool = False
    ) -> None:
        self.encoder, self.stemming = encoder, stemming
        self._file = make_private(folder) / f"v{VERSION}.jsonl" if folder else None
        self._values: dict[str, Values] = {}
        if self._file and self._file.exists():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # the last line of a process that was killed
                    self._merge(json.loads(line))

    def values(self, output: str, reference: Reference, source: str) -> Values:
        """Return every metric of one generated text, stored or computed now; ROUGE under its plain names."""
        key = self.key(output, reference, source)
        if missing := self.missing(output, reference, source):
            self.add({key: measure(output, reference, source, self.encoder, missing)})
        found = self._values[key]
        stemmed = {name.removeprefix(STEMMED): value for name, value in found.items() if name.startswith(STEMMED)}
        return {**found, **stemmed} if self.stemming else found

    def missing(self, output: str, reference: Reference, source: str) -> tuple[str, ...]:
        """List the groups of metrics of a generated text that are not stored."""
        known = self._values.get(self.key(output, reference, source), {})
        left_out = {"rouge" if self.stemming else "stemmed rouge", *(() if self.encoder else ("bertscore",))}
        return tuple(
            group for group, names in GROUPS.items() if group not in left_out and not known.keys() >= set(names)
        )

    def key(self, output: str, reference: Reference, source: str) -> str:
        """Compute the hash that a generated text's values are stored under."""
        encoder = [self.encoder.digest, self.encoder.layer] if self.encoder else None
        return hashlib.sha256(json.dumps([_versions(), encoder, output, reference, source]).encode()).hexdigest()

    def add(self, found: Mapping[str, Values]) -> None:
        """Store values under their keys."""
        self._merge(found)
        if self._file:
            self._file.touch(mode=0o600)
            with self._file.open("a", encoding="utf-8") as stream:
                # The line break first: what a killed process left half-written stays a line of its own.
                stream.write("\n" + json.dumps(found))

    def _merge(self, found: Mapping[str, Values]) -> None:
        for key, values in found.items():
            self._values.setdefault(key, {}).update(values)
