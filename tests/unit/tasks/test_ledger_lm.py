"""What is asked for a request of lm-eval: truncation and seeds."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval.api.instance import Instance

from orchestrator.core.errors import UserError
from orchestrator.core.records import Serving
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.requests import Cut, CuttableInstance, Edge
from tests.helpers.paths import INSTRUCT


@pytest.fixture(scope="module")
def lm() -> LedgerLM:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(INSTRUCT)
    return LedgerLM(Serving("t", None, (0,), 512, "x", (), "a", "/nowhere"), tokenizer, seed=5)


def request(context: str, cut: Cut | None = None, **settings: Any) -> Instance:
    arguments = (context, {"until": [], "max_gen_toks": 100, **settings})
    if cut is None:
        return Instance("generate_until", {}, arguments, 0, ("t", 0, 1))
    return CuttableInstance("generate_until", {}, arguments, 0, ("t", 0, 1), cut=cut)


@pytest.mark.parametrize("side", ["left", "right"])
def test_only_the_input_is_cut_from_the_side_that_the_task_says(side: Edge, lm: LedgerLM) -> None:
    text = " ".join(f"word{i}" for i in range(300))
    prompt = f"Summarize.\n\n{text}\n\nSummary:"
    (question,) = lm.questions(request(prompt, max_context_toks=120, cut=Cut(text, side)))
    kept = lm.tokenizer.decode(question.context)
    assert len(question.context) <= 120 < len(question.context) + 5, "as much as fits"
    assert question.truncated == len(lm.tok_encode(prompt)) - len(question.context)
    assert kept.startswith("Summarize.\n\n") and kept.endswith("\n\nSummary:")
    assert ("word0 " in kept) == (side == "right") and ("word299" in kept) == (side == "left")


def test_a_prompt_that_fits_is_not_cut_and_one_that_never_fits_is_refused(lm: LedgerLM) -> None:
    (question,) = lm.questions(request("A: b c", cut=Cut("b", "left")))
    assert question.truncated == 0
    with pytest.raises(UserError, match=r"tokens without its input, but room for 3"):
        lm.questions(request("Summarize this letter: b c", max_context_toks=3, cut=Cut("b", "left")))


def test_an_input_that_a_template_trims_is_shortened_and_one_that_it_changes_is_refused(lm: LedgerLM) -> None:
    text = "\n" + " ".join(f"word{i}" for i in range(300)) + "\n\n"
    (question,) = lm.questions(request(f"Summarize: {text.strip()}<end>", max_context_toks=120, cut=Cut(text, "right")))
    kept = lm.tokenizer.decode(question.context)
    assert len(question.context) <= 120 and kept.startswith("Summarize: word0 ") and kept.endswith("<end>")
    with pytest.raises(UserError, match="cannot be shortened, because its template changes the input"):
        lm.questions(request(f"Summarize: {text.upper()}", max_context_toks=120, cut=Cut(text, "right")))


def test_every_prompt_has_a_seed_of_its_own_and_the_same_tomorrow(lm: LedgerLM) -> None:
    def seed(prompt: str, repeat: int = 0) -> int | None:
        (question,) = lm.questions(request(prompt, do_sample=True, temperature=0.3), repeat)
        assert question.decoding is not None
        return question.decoding.seed

    assert len({seed("a"), seed("b"), seed("a", 1)}) == 3
    assert seed("a") == 2885444909, "the same in every process: rerun and resume find the stored answers"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"eos_token": None}, "names no end of text that is in its vocabulary"),
        ({"eos_token": "</s>"}, "names no end of text that is in its vocabulary"),
        ({"bos_token": "<s>"}, "beginning of text, '<s>', is not in its vocabulary"),
    ],
    ids=["none", "not in the vocabulary", "beginning not in the vocabulary"],
)
def test_a_tokenizer_without_an_end_of_text(changes: dict[str, Any], expected: str) -> None:
    """transformers gives a token that it does not know the first id beyond the vocabulary."""
    from transformers import AutoTokenizer

    rows = len(AutoTokenizer.from_pretrained(INSTRUCT))
    tokenizer = AutoTokenizer.from_pretrained(INSTRUCT, **{"bos_token": None, **changes})
    lm = LedgerLM(Serving("t", None, (0,), 512, "x", (), "a", "/nowhere", vocab_size=rows), tokenizer)
    (question,) = lm.questions(Instance("loglikelihood", {}, ("Is it?", " yes"), 0, ("t", 0, 1)))
    assert question.continuation, "a context needs no prefix"
    for kind, arguments in (("loglikelihood", ("", " yes")), ("loglikelihood_rolling", ("yes",))):
        with pytest.raises(UserError, match=expected):
            lm.questions(Instance(kind, {}, arguments, 0, ("t", 0, 1)))
    begun = AutoTokenizer.from_pretrained(INSTRUCT, bos_token="<|im_start|>", eos_token=None)
    (first,) = LedgerLM(lm.serving, begun).questions(Instance("loglikelihood", {}, ("", " yes"), 0, ("t", 0, 1)))
    assert first.context == (begun.bos_token_id,)


def test_a_token_without_a_row_is_named() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(INSTRUCT)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<|drug|>"])
    lm = LedgerLM(Serving("t", None, (0,), 512, "x", (), "a", "/nowhere", vocab_size=rows), tokenizer)
    assert lm.tok_encode("a drug")
    with pytest.raises(UserError, match=r"reads '<\|drug\|>' as id 768, but the models' vocabulary is 768"):
        lm.tok_encode("a <|drug|>")
