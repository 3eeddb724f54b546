"""The metrics are those of the libraries, called directly; an empty text scores 0; what was measured is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.config.generation import Encoder
from orchestrator.core.errors import UserError
from tasks.generation.metrics import LEXICAL, SIX, Measured, OpenEncoder, lexical, measure, open_encoder

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


@pytest.mark.slow
def test_lexical_metrics_are_the_libraries() -> None:
    import nltk
    import sacrebleu
    from nltk.translate import meteor_score
    from rouge_score import rouge_scorer

    rouge = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False).score(REFERENCE, OUTPUT)
    expected = {
        "bleu": sacrebleu.BLEU(effective_order=True).sentence_score(OUTPUT, [REFERENCE]).score / 100,
        "meteor": meteor_score.meteor_score([nltk.word_tokenize(REFERENCE)], nltk.word_tokenize(OUTPUT)),
        **{name: score.fmeasure for name, score in rouge.items()},
    }
    assert lexical(OUTPUT, [REFERENCE]) == pytest.approx(expected)
    assert all(0 < value < 1 for value in expected.values())


def test_meteor_knows_synonyms() -> None:
    """Those whose stems are words: NLTK stems first."""
    pair = lexical("car", ["auto"])["meteor"], lexical("train", ["auto"])["meteor"]
    assert pair[0] > pair[1] == 0, "WordNet is there"


def test_bertscore_is_the_librarys(encoder: OpenEncoder) -> None:
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=encoder.folder, num_layers=2, device="cpu")
    scorer._tokenizer.model_max_length = 64
    _, _, f1 = scorer.score([OUTPUT], [REFERENCE])
    values = measure(OUTPUT, REFERENCE, "", encoder)
    assert values["bertscore"] == pytest.approx(float(f1[0]), abs=1e-6)
    assert values["composite"] == pytest.approx(sum(values[name] for name in SIX) / 6)


def test_a_long_text_is_cut_to_the_encoders_length(encoder: OpenEncoder) -> None:
    assert 0 < measure("the patient has pain . " * 100, REFERENCE, "", encoder)["bertscore"] <= 1


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_output_scores_0(empty: str, encoder: OpenEncoder) -> None:
    values = measure(empty, REFERENCE, "", encoder)
    assert {name: values[name] for name in (*SIX, "composite")} == dict.fromkeys((*SIX, "composite"), 0.0)


def test_equal_texts_score_1(encoder: OpenEncoder) -> None:
    values = measure(REFERENCE, REFERENCE, REFERENCE, encoder)
    assert all(values[name] == pytest.approx(1, abs=0.01) for name in (*SIX, "composite"))
    assert values["faithfulness"][0] == values["faithfulness"][1] > 0


def test_without_an_encoder_there_is_no_composite() -> None:
    values = measure(OUTPUT, REFERENCE, "", None)
    assert "composite" not in values and "bertscore" not in values
    assert values["composite_without_bertscore"] == pytest.approx(sum(values[name] for name in LEXICAL) / 5)


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
    monkeypatch.setattr("tasks.generation.metrics.measure", lambda *_: pytest.fail("measured twice"))
    with file.open("a") as stream:
        stream.write('\n{"cut off')
    again = Measured(folder)
    assert json.dumps(again.values(OUTPUT, REFERENCE, "source")) == json.dumps(first)
    again.add({"next": {}})
    assert Measured(folder)._values["next"] == {}, "a line that was cut off spoils no other"
