"""How close a generated text is to its reference: BLEU, METEOR, ROUGE and BERTScore, by the libraries that define them.

All lie in [0, 1], and a task's value is the mean of its documents' own, but for corpus BLEU, which is that of all texts
taken together. Nothing here writes or logs a text: they may be clinical.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from orchestrator.config.generation import COMPOSITE, OPTED_OUT, Encoder, TextMetrics
from orchestrator.config.models import Parent
from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from orchestrator.models.resolve import open_model
from orchestrator.models.tokenizer import open_tokenizer
from orchestrator.stats.estimates import Floats
from tasks.generation.faithfulness import faithfulness

CORPUS_BLEU = "corpus_bleu"
FAITHFULNESS = "faithfulness"
STEMMED = "stemmed "
"""Before the name of a ROUGE whose words were stemmed."""
ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
GROUPS: dict[str, tuple[str, ...]] = {
    "bleu": ("bleu", CORPUS_BLEU),
    "meteor": ("meteor",),
    "rouge": ROUGES,
    "stemmed rouge": tuple(STEMMED + name for name in ROUGES),
    "bertscore": ("bertscore",),
    "faithfulness": (FAITHFULNESS,),
}
"""Metrics that are computed together. `corpus_bleu` of one text is what it adds to the corpus's: sacrebleu's
statistics, the length of the text and of the nearest reference, then matching and all n-grams of 1 to 4 words."""
NEED_ENCODER = (COMPOSITE, "bertscore")
METRICS = (
    COMPOSITE, "bleu", CORPUS_BLEU, "meteor", "rouge1", "rouge2", "rougeL", "rougeLsum", "bertscore", OPTED_OUT,
    FAITHFULNESS,
)  # fmt: skip
Reference = str | Sequence[str]
"""A reference text, or several."""
Values = dict[str, Any]
"""Metric → its value."""


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
        measure("a text", "a text", "", None, ("meteor",))
    except LookupError:
        raise UserError(
            "METEOR needs NLTK's data: wordnet and punkt_tab in a folder that NLTK_DATA names; `make setup` puts them "
            "into the environment"
        ) from None


def measure(
    output: str, reference: Reference, source: str, encoder: OpenEncoder | None, groups: Iterable[str]
) -> Values:
    """Compute metrics of one generated text.

    Args:
        reference: one text, or several, of which the best counts; BLEU takes them together.
        source: the text that the output was generated from; only faithfulness uses it.
        encoder: BERTScore's; the other groups do without.
        groups: names in `GROUPS`.

    Returns:
        Metric → value, in [0, 1]. An empty output scores 0 in all but faithfulness, which is a pair: supported
        statements, and statements checked; to the corpus's BLEU it adds its missing length.
    """
    references = [reference] if isinstance(reference, str) else list(reference)
    values: Values = {}
    for group in groups:
        if group == "faithfulness":
            values[FAITHFULNESS] = faithfulness(output, source)
        elif group == "bleu":
            values |= _bleu(output, references)
        elif not output.strip():
            values |= dict.fromkeys(GROUPS[group], 0.0)
        elif group == "meteor":
            values["meteor"] = _meteor(output, references)
        elif group == "bertscore":
            assert encoder is not None, "the caller has one"
            values["bertscore"] = bertscore(output, references, encoder.folder, encoder.layer)
        else:
            values |= _rouge(output, references, stemming=group.startswith(STEMMED))
    return values


def composite_of(name: str, chosen: TextMetrics) -> tuple[str, ...]:
    """The metrics whose mean a composite is."""
    bleu = CORPUS_BLEU if chosen.bleu == "corpus" else "bleu"
    return (bleu, "meteor", "rouge1", "rouge2", chosen.rouge, *(("bertscore",) if name == COMPOSITE else ()))


def corpus_bleu(statistics: Sequence[float] | Floats) -> float:
    """Compute sacrebleu's BLEU of a corpus, in [0, 1], from the sums of what its texts add to it.

    Args:
        statistics: sums of `corpus_bleu` in `GROUPS`; shape (10,).
    """
    from sacrebleu import BLEU

    sizes = [int(part) for part in statistics]
    return float(BLEU.compute_bleu(sizes[2:6], sizes[6:10], sizes[0], sizes[1], smooth_method="exp").score) / 100


def _bleu(output: str, references: Sequence[str]) -> Values:
    """Both BLEUs: the sentence's own, by sacrebleu's tokens, smoothing and effective order, and its statistics."""
    from sacrebleu import sentence_bleu

    found = sentence_bleu(output, references)
    value = found.score / 100 if output.strip() else 0.0
    return {"bleu": value, CORPUS_BLEU: [found.sys_len, found.ref_len, *found.counts, *found.totals]}


def _meteor(output: str, references: Sequence[str]) -> float:
    """METEOR over NLTK's word tokens and WordNet 3.0, of the reference that gives most, as its authors define it."""
    from nltk import word_tokenize
    from nltk.translate.meteor_score import single_meteor_score

    words, wordnet = word_tokenize(output), _wordnet()
    return max(float(single_meteor_score(word_tokenize(each), words, wordnet=wordnet)) for each in references)


def _rouge(output: str, references: Sequence[str], *, stemming: bool) -> Values:
    """ROUGE's F1, of the reference that gives most, as its authors define it."""
    found = _rouge_scorer(stemming).score_multi(references, output)
    return {(STEMMED if stemming else "") + name: float(found[name].fmeasure) for name in ROUGES}


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


@lru_cache(maxsize=2)
def _rouge_scorer(stemming: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGES), use_stemmer=stemming)


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
