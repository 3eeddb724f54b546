"""How close a generated text is to its reference: BLEU, METEOR, ROUGE and BERTScore, by the libraries that define them.

All lie in [0, 1], each is a document's own value, and a task's value is their mean over the documents. Nothing here
writes or logs a text: they may be clinical.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator.config.generation import Encoder
from orchestrator.config.models import Parent
from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private
from orchestrator.core.text import one_line
from orchestrator.models.resolve import open_model
from orchestrator.models.tokenizer import open_tokenizer
from tasks.generation.faithfulness import faithfulness

LEXICAL = ("bleu", "meteor", "rouge1", "rouge2", "rougeL")
SIX = (*LEXICAL, "bertscore")
COMPOSITE, OPTED_OUT = "composite", "composite_without_bertscore"
"""The unweighted mean of the six, and of the five: another name, so that they are not confused."""
FAITHFULNESS = "faithfulness"
NEED_ENCODER = (COMPOSITE, "bertscore")
METRICS = (COMPOSITE, *SIX, OPTED_OUT, FAITHFULNESS)
Reference = str | Sequence[str]
"""A reference text, or several."""
Values = dict[str, Any]
"""Metric → its value."""
VERSION = 2
"""Version of the metrics: raised with every change of a value, so that stored values are computed again."""
LIBRARIES = ("bert-score", "nltk", "rouge-score", "sacrebleu")


@dataclass(frozen=True)
class OpenEncoder:
    """BERTScore's encoder on this machine."""

    folder: str
    layer: int
    digest: str


def open_encoder(encoder: Encoder | None, *, weights: bool = True) -> OpenEncoder | None:
    """Bring BERTScore's encoder to this machine.

    Args:
        weights: False fetches only the config and tokenizer of a hub model, for `plan`.

    Returns:
        None where the sweep names none.

    Raises:
        UserError: there is no such model, it has fewer layers than are named, or its weights are not safetensors
            or its tokenizer cannot be loaded.
    """
    if encoder is None:
        return None
    parent = Parent(model=encoder.model, revision=encoder.revision)
    files = open_model("generation", "encoder", parent, weights=weights)
    layers = files.config.get("num_hidden_layers", encoder.layer)
    if encoder.layer > layers:
        raise UserError(f"generation.encoder.layer: {encoder.model} has {layers} layers, not {encoder.layer}; lower it")
    try:
        open_tokenizer(files.folder)
    except Exception as error:  # tokenizers raises nothing more specific
        raise UserError(
            f"generation.encoder.model: the tokenizer of {encoder.model} cannot be loaded ({one_line(error)}); take an "
            "encoder that has one"
        ) from None
    return OpenEncoder(str(files.folder), encoder.layer, files.source.digest)


def check_lexical() -> None:
    """Measure one text, so that data which a metric lacks is missed before any text is generated.

    Raises:
        UserError: NLTK's data is not there.
    """
    try:
        lexical("a text", ["a text"])
    except LookupError:
        raise UserError(
            "METEOR needs NLTK's data: wordnet and punkt_tab in a folder that NLTK_DATA names; `make setup` puts them "
            "into the environment"
        ) from None


def measure(output: str, reference: Reference, source: str, encoder: OpenEncoder | None) -> Values:
    """Compute every metric of one generated text.

    Args:
        reference: one text, or several, of which the best counts; BLEU takes them together.
        source: the text that the output was generated from; only faithfulness uses it.
        encoder: BERTScore's; None leaves out the metrics that need it.

    Returns:
        Metric → value, in [0, 1]. An empty output scores 0 in all but faithfulness, which is a pair: supported
        statements, and statements checked.
    """
    values: Values = dict.fromkeys(SIX if encoder else LEXICAL, 0.0)
    references = [reference] if isinstance(reference, str) else list(reference)
    if output.strip():
        values.update(lexical(output, references))
        if encoder:
            values["bertscore"] = bertscore(output, references, encoder.folder, encoder.layer)
    if encoder:
        values[COMPOSITE] = sum(values[name] for name in SIX) / len(SIX)
    values[OPTED_OUT] = sum(values[name] for name in LEXICAL) / len(LEXICAL)
    values[FAITHFULNESS] = faithfulness(output, source)
    return values


def lexical(output: str, references: Sequence[str]) -> dict[str, float]:
    """Compute BLEU, METEOR and ROUGE of a text and its references, none of them empty, each in [0, 1].

    BLEU is that of the sentence (sacrebleu's tokens, smoothing and effective order), METEOR is over NLTK's word tokens
    and WordNet 3.0, ROUGE is F1 without stemming; both are those of the reference that gives most, as their authors
    define them for several.
    """
    from nltk import word_tokenize
    from nltk.translate.meteor_score import single_meteor_score
    from sacrebleu import sentence_bleu

    rouge = _rouge().score_multi(references, output)
    words, wordnet = word_tokenize(output), _wordnet()
    return {
        "bleu": sentence_bleu(output, references).score / 100,
        "meteor": max(float(single_meteor_score(word_tokenize(each), words, wordnet=wordnet)) for each in references),
        **{name: float(rouge[name].fmeasure) for name in ("rouge1", "rouge2", "rougeL")},
    }


def bertscore(output: str, references: Sequence[str], folder: str, layer: int) -> float:
    """Compute BERTScore's F1 of a text and the nearest of its references, none of them empty, in [0, 1].

    It is without idf weights and without rescaling; a value below 0 counts as 0.

    Args:
        folder: the encoder's, on this machine.
        layer: number of the encoder's layer whose output is compared.
    """
    _, _, f1 = _bert_scorer(folder, layer).score([output], [list(references)])
    return min(1.0, max(0.0, float(f1[0])))


def distinct(outputs: Iterable[str], n: int) -> float:
    """Compute the diversity of texts taken together: different n-grams of words over all n-grams (Li et al. 2016).

    Case does not count; it is 0 where no text has n words.
    """
    grams: list[tuple[str, ...]] = []
    for output in outputs:
        words = output.lower().split()
        grams += zip(*(words[start:] for start in range(n)), strict=False)
    return len(set(grams)) / len(grams) if grams else 0.0


@lru_cache(maxsize=1)
def _versions() -> list[str]:
    """Versions of the libraries that define the metrics."""
    return [importlib.metadata.version(name) for name in LIBRARIES]


@lru_cache(maxsize=1)
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"])


@lru_cache(maxsize=1)
def _wordnet() -> Any:
    """WordNet in English.

    NLTK's own reader maps other languages' wordnets to it, which takes seconds in each process.
    """
    import nltk
    from nltk.corpus.reader import WordNetCorpusReader

    class English(WordNetCorpusReader):  # type: ignore[misc]
        def map_wn(self, version: str = "wordnet") -> None:
            return None

    with warnings.catch_warnings(action="ignore"):  # that it has no other language
        return English(nltk.data.find("corpora/wordnet"), None)


@lru_cache(maxsize=1)
def _bert_scorer(folder: str, layer: int) -> Any:
    from bert_score import BERTScorer
    from transformers.utils import logging

    logging.disable_progress_bar()
    scorer = BERTScorer(model_type=folder, num_layers=layer, device="cpu", batch_size=1)
    # A tokenizer that names no length has a number too large for the tokenizers library. RoBERTa's positions start
    # after its padding id.
    config = scorer._model.config
    offset = config.pad_token_id + 1 if config.model_type in {"roberta", "xlm-roberta", "camembert"} else 0
    length = config.max_position_embeddings - offset
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, length)
    return scorer


class Measured:
    """Metric values that were computed before, so that `report` and a resumed sweep compute none twice.

    They are kept in a file of numbers under hashes.

    Args:
        folder: created if missing, readable by its owner only; None keeps them for this process alone.
    """

    def __init__(self, folder: Path | None = None, encoder: OpenEncoder | None = None) -> None:
        self.encoder = encoder
        self._file = make_private(folder) / f"v{VERSION}.jsonl" if folder else None
        self._values: dict[str, Values] = {}
        if self._file and self._file.exists():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # the last line of a process that was killed
                    self._values.update(json.loads(line))

    def values(self, output: str, reference: Reference, source: str) -> Values:
        """Return every metric of one generated text, stored or computed now."""
        key = self.key(output, reference, source)
        if key not in self._values:
            self.add({key: measure(output, reference, source, self.encoder)})
        return self._values[key]

    def knows(self, output: str, reference: Reference, source: str) -> bool:
        """Whether the values of a generated text are stored."""
        return self.key(output, reference, source) in self._values

    def key(self, output: str, reference: Reference, source: str) -> str:
        """Compute the hash that a generated text's values are stored under."""
        encoder = [self.encoder.digest, self.encoder.layer] if self.encoder else None
        return hashlib.sha256(json.dumps([_versions(), encoder, output, reference, source]).encode()).hexdigest()

    def add(self, found: dict[str, Values]) -> None:
        """Store values under their keys."""
        self._values.update(found)
        if self._file:
            self._file.touch(mode=0o600)
            with self._file.open("a", encoding="utf-8") as stream:
                # The line break first: what a killed process left half-written stays a line of its own.
                stream.write("\n" + json.dumps(found))
