"""The metrics are those of the libraries, called directly; an empty text scores 0; what was measured is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.config.generation import Encoder
from orchestrator.core.errors import UserError
from tasks.generation.measured import Measured
from tasks.generation.metrics import GROUPS, ROUGES, STEMMED, OpenEncoder, Values, corpus_bleu, measure, open_encoder

OUTPUT = "The patient had a car injury to the left hip; no fever was noted."
REFERENCE = "Patient has left hip pain after an automobile accident. She denies fever."
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "patient",
    "has",
    "had",
    "left",
    "hip",
    "pain",
    "no",
    "fever",
    "she",
    "denies",
    ".",
    ";",
    "a",
    "car",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OpenEncoder:
    """A random BERT of two layers whose tokenizer names no maximal length."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    opened = open_encoder(Encoder(model=str(folder), layer=2))
    assert opened is not None
    return opened


def lexical(output: str, *references: str) -> Values:
    return measure(output, references, "", None, ("bleu", "meteor", "rouge", "stemmed rouge"))


@pytest.mark.slow
@pytest.mark.parametrize("references", [(REFERENCE,), (REFERENCE, "A car hit the patient.\nThe hip is injured.")])
def test_lexical_metrics_are_the_libraries(references: tuple[str, ...]) -> None:
    import nltk
    import sacrebleu
    from nltk.translate import meteor_score
    from rouge_score import rouge_scorer

    expected = {
        "bleu": sacrebleu.BLEU(effective_order=True).sentence_score(OUTPUT, references).score / 100,
        "meteor": meteor_score.meteor_score([*map(nltk.word_tokenize, references)], nltk.word_tokenize(OUTPUT)),
    }
    for stemming in (False, True):
        found = rouge_scorer.RougeScorer(list(ROUGES), use_stemmer=stemming).score_multi(references, OUTPUT)
        expected |= {(STEMMED if stemming else "") + name: each.fmeasure for name, each in found.items()}
    values = lexical(OUTPUT, *references)
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert all(0 < value < 1 for value in expected.values())


@pytest.mark.parametrize("references", [[[REFERENCE] * 3], [[REFERENCE] * 3, ["No fever.", "A hip.", REFERENCE]]])
@pytest.mark.parametrize("outputs", [[OUTPUT, "She denies fever.", REFERENCE], ["", OUTPUT, ""], [" ", "", ""]])
def test_corpus_bleu_is_sacrebleus(outputs: list[str], references: list[list[str]]) -> None:
    """With several references, and with texts that are empty."""
    import sacrebleu

    texts = zip(outputs, *references, strict=True)
    parts = [measure(output, those, "", None, ("bleu",))["corpus_bleu"] for output, *those in texts]
    assert corpus_bleu([sum(column) for column in zip(*parts, strict=True)]) == pytest.approx(
        sacrebleu.corpus_bleu(outputs, references).score / 100
    )


def test_meteor_knows_synonyms() -> None:
    """Those whose stems are words: NLTK stems first."""
    pair = lexical("car", "auto")["meteor"], lexical("train", "auto")["meteor"]
    assert pair[0] > pair[1] == 0, "WordNet is there"


def test_bertscore_is_the_librarys(encoder: OpenEncoder) -> None:
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=encoder.folder, num_layers=2, device="cpu")
    scorer._tokenizer.model_max_length = 64
    _, _, f1 = scorer.score([OUTPUT], [REFERENCE])
    values = measure(OUTPUT, REFERENCE, "", encoder, ("bertscore",))
    assert values["bertscore"] == pytest.approx(float(f1[0]), abs=1e-6)


def test_a_long_text_is_cut_to_the_encoders_length(encoder: OpenEncoder) -> None:
    assert 0 < measure("the patient has pain . " * 100, REFERENCE, "", encoder, ("bertscore",))["bertscore"] <= 1


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_output_scores_0(empty: str, encoder: OpenEncoder) -> None:
    values = measure(empty, REFERENCE, "", encoder, GROUPS)
    assert values.pop("faithfulness") == (0, 0)
    assert values.pop("corpus_bleu") == [0, 14, *[0] * 8]
    assert len(values) == 11 and set(values.values()) == {0.0}


def test_equal_texts_score_1(encoder: OpenEncoder) -> None:
    values = measure(REFERENCE, REFERENCE, REFERENCE, encoder, GROUPS)
    supported, checked = values.pop("faithfulness")
    assert supported == checked > 0
    assert corpus_bleu(values.pop("corpus_bleu")) == pytest.approx(1)
    assert all(value == pytest.approx(1, abs=0.01) for value in values.values())


def test_an_encoder_that_is_not_there_or_not_so_deep(encoder: OpenEncoder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"generation\.encoder\.layer: .* has 2 layers, not 3; lower it"):
        open_encoder(Encoder(model=encoder.folder, layer=3))
    with pytest.raises(UserError, match=r"generation\.encoder\.model: the folder .* does not exist"):
        open_encoder(Encoder(model=str(tmp_path / "none"), layer=1))


def test_what_was_measured_is_remembered_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "metrics"
    first = Measured(folder).values(OUTPUT, REFERENCE, "source")
    (file,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert "patient" not in file.read_text().lower(), "no text is written"
    monkeypatch.setattr("tasks.generation.measured.measure", lambda *_: pytest.fail("measured twice"))
    with file.open("a") as stream:
        stream.write('\n{"cut off')
    again = Measured(folder)
    assert json.dumps(again.values(OUTPUT, REFERENCE, "source")) == json.dumps(first)
    again.add({"next": {}})
    assert Measured(folder)._values["next"] == {}, "a line that was cut off spoils no other"


def test_of_values_that_an_earlier_version_stored_only_the_new_ones_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (OUTPUT, REFERENCE, "source")
    old = {name: 0.5 for name in ("bleu", "meteor", "rouge1", "rouge2", "rougeL", "composite_without_bertscore")}
    earlier = Measured(tmp_path)
    earlier.add({earlier.key(*text): {**old, "faithfulness": [1, 2]}})
    assert Measured(tmp_path).missing(*text) == ("bleu", "rouge"), "corpus BLEU and ROUGE-Lsum are new"
    stemmed = Measured(tmp_path, stemming=True)
    assert stemmed.missing(*text) == ("bleu", "stemmed rouge")
    assert stemmed.values(*text)["rougeL"] > stemmed.values(*text)[STEMMED + "rougeL"] - 1e-9 > 0
    plain = Measured(tmp_path)
    assert plain.missing(*text) == ("rouge",)
    assert plain.values(*text)["meteor"] == 0.5 != plain.values(*text)["rougeL"]
