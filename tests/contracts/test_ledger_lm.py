"""Our lm-eval model against lm-eval's own Hugging Face model: the same requests, the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import UserError
from orchestrator.core.records import Answer, Question, Serving
from orchestrator.recipes.recipe import Point, Source, single
from tasks.evaluation.ledger_lm import LedgerLM, Unanswered
from tasks.serving.fake import FakeEngine
from tasks.serving.vllm_engine import VllmEngine

LONG = "the dose of the drug is taken twice a day with water, and not more than that; " * 12
LOGLIKELIHOODS = [
    ("The class of Velmorin is", " beta agonist"),
    ("The class of Velmorin is", " A"),
    ("trailing space moves ", "to the continuation"),
    ("", "no context at all"),
    (LONG, " cut off on the left"),
]
GENERATIONS = [
    ("Say something.", {"until": [], "max_gen_toks": 12, "do_sample": False}),
    ("Say something else.", {"until": ["e"], "max_gen_toks": 24}),
    (LONG, {"until": ["\n"], "max_gen_toks": 8}),
]


def requests(kind: str, arguments: list[Any]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, i, ("test", i, 1)) for i, args in enumerate(arguments)]


@pytest.fixture(scope="module")
def tokenizer(parents: dict[str, Path]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(parents["a"])


@pytest.fixture
def ours(vllm: VllmEngine, parents: dict[str, Path], tokenizer: Any) -> LedgerLM:
    vllm.load(single(Source("digest-a", "a", str(parents["a"])), "float32", Point("parent")))
    return LedgerLM(vllm.serving, tokenizer, answer=vllm.answer)


@pytest.fixture(scope="module")
def theirs(parents: dict[str, Path]) -> Any:
    from lm_eval.models.huggingface import HFLM

    # vLLM keeps one place of its 256 for the token it must write, and a rolling window starts with one more.
    return HFLM(pretrained=str(parents["a"]), dtype="float32", device="cpu", batch_size=1, max_length=254)


def test_loglikelihood(ours: LedgerLM, theirs: Any) -> None:
    mine = ours.loglikelihood(requests("loglikelihood", LOGLIKELIHOODS))
    expected = theirs.loglikelihood(requests("loglikelihood", LOGLIKELIHOODS), disable_tqdm=True)
    for (logprob, greedy), (their_logprob, their_greedy) in zip(mine, expected, strict=True):
        assert logprob == pytest.approx(their_logprob, abs=1e-3)
        assert greedy == their_greedy


def test_loglikelihood_rolling(ours: LedgerLM, theirs: Any) -> None:
    texts = [("short",), (LONG,)]
    mine = ours.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    expected = theirs.loglikelihood_rolling(requests("loglikelihood_rolling", texts), disable_tqdm=True)
    assert mine == pytest.approx(expected, abs=1e-3)
    assert len(ours.questions(requests("loglikelihood_rolling", texts)[1])) > 1, "a text of several windows"


def test_generate_until(ours: LedgerLM, theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theirs, "_max_length", 256)  # a prompt and its answer together, as in vLLM
    mine = ours.generate_until(requests("generate_until", GENERATIONS))
    assert mine == theirs.generate_until(requests("generate_until", GENERATIONS), disable_tqdm=True)


def test_the_ledger_is_asked_first(tokenizer: Any, vllm: VllmEngine) -> None:
    asked: list[Question] = []

    def ask(questions: Any) -> list[Answer]:
        asked.extend(questions)
        return FakeEngine().answer(questions)

    lm = LedgerLM(vllm.serving, tokenizer, answer=ask)
    first = lm.loglikelihood(requests("loglikelihood", LOGLIKELIHOODS[:2]))
    assert len(asked) == 2
    again = lm.loglikelihood(requests("loglikelihood", LOGLIKELIHOODS[:3]))
    assert again[:2] == first
    assert len(asked) == 3
    silent = lm.knowing(lm.known)
    silent.answer = None
    assert silent.loglikelihood(requests("loglikelihood", LOGLIKELIHOODS[:3])) == again
    with pytest.raises(Unanswered, match="1 of 4 questions have no answer yet"):
        silent.loglikelihood(requests("loglikelihood", LOGLIKELIHOODS[:4]))


def test_sampled_repeats_are_different_questions_and_greedy_ones_the_same(tokenizer: Any, vllm: VllmEngine) -> None:
    lm = LedgerLM(vllm.serving, tokenizer, seed=5)
    (greedy,) = requests("generate_until", [("x", {"max_gen_toks": 4})])
    (sampled,) = requests("generate_until", [("x", {"max_gen_toks": 4, "temperature": 0.8, "do_sample": True})])
    assert lm.questions(greedy, 0) == lm.questions(greedy, 1)
    seeds = {lm.questions(sampled, repeat)[0].decoding.seed for repeat in range(2)}  # type: ignore[union-attr]
    assert len(seeds) == 2


def test_truncation_is_from_the_left_and_counted(tokenizer: Any, vllm: VllmEngine) -> None:
    lm = LedgerLM(vllm.serving, tokenizer)
    (question,) = lm.questions(requests("loglikelihood", [(LONG, " end")])[0])
    assert len(question.context) + len(question.continuation) == 255
    assert question.truncated > 0
    assert tuple(lm.tok_encode(LONG.rstrip())[-len(question.context) :]) == question.context
    with pytest.raises(UserError, match="max_model_len: 256 leaves no room"):
        lm.questions(requests("generate_until", [("x", {"max_gen_toks": 256})])[0])


def test_a_chat_template_that_writes_the_bos_token_gets_no_second_one(tokenizer: Any) -> None:
    serving = Serving("t", None, (), 256, "x", (), "a", "/nowhere")
    lm = LedgerLM(serving, tokenizer)
    assert lm.tok_encode("abc") == lm.tok_encode("abc", add_special_tokens=None)
    if tokenizer.bos_token:
        assert lm.tok_encode(tokenizer.bos_token + "abc").count(tokenizer.bos_token_id) == 1


def test_a_reply_whose_language_is_unknown_is_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    from lm_eval.tasks.ifeval import instructions

    import tasks.evaluation.judge  # noqa: F401

    checker = instructions.ResponseLanguageChecker("language:response_language")
    checker.build_description(language="en")
    assert checker.check_following("1. 1. 1.")
    assert "1. 1." not in capfd.readouterr().err
