"""What every engine must do, asked of each: the fake one, and vLLM with real tiny weights."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import is_final, words
from orchestrator.config.workers import EngineSettings, Workers
from orchestrator.core.records import Answer, Decoding, Question, Serving
from orchestrator.recipes.recipe import Point, Recipe, Source, single
from tasks.merging.checkpoint import materialise
from tasks.serving.boot import Boot
from tasks.serving.engine import Engine, InvalidWeights, QuestionRefused
from tasks.serving.fake import FakeEngine
from tasks.serving.vllm_engine import VllmEngine

PROMPT = tuple(range(20, 60))
LETTERS = [Question(PROMPT, (token,)) for token in (30, 31, 32, 33)]
QUESTIONS = [
    *LETTERS,
    Question(PROMPT, (40, 41, 42)),
    Question((5,), tuple(range(10, 40))),
    Question(PROMPT[:10], decoding=Decoding(16, ())),
    Question(PROMPT[:11], decoding=Decoding(16, (), temperature=0.7, top_p=0.9, seed=3)),
]


def sources(parents: dict[str, Path]) -> list[Source]:
    return [Source(f"digest-{name}", name, str(folder)) for name, folder in parents.items()]


def recipes(parents: dict[str, Path]) -> dict[str, Recipe]:
    a, b = sources(parents)
    half = Recipe("linear", ((a, {"weight": 0.5}), (b, {"weight": 0.5})), a, {}, "float32")
    return {"a": single(a, "float32", Point("parent")), "b": single(b, "float32", Point("parent")), "half": half}


@pytest.fixture(params=["fake", "vllm"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    yield FakeEngine() if request.param == "fake" else request.getfixturevalue("vllm")


def test_answers_come_in_the_order_asked_and_of_the_kind_asked(engine: Engine, parents: dict[str, Path]) -> None:
    engine.load(recipes(parents)["a"])
    answers = engine.answer(QUESTIONS)
    assert [answer.question_id for answer in answers] == [question.id for question in QUESTIONS]
    for question, answer in zip(QUESTIONS, answers, strict=True):
        if question.decoding is None:
            assert answer.logprob is not None and answer.logprob <= 0
            assert answer.is_greedy is not None and answer.text is None
        else:
            assert answer.logprob is None and answer.text is not None and answer.tokens > 0


def test_the_same_block_gets_the_same_answers_whatever_came_before(engine: Engine, parents: dict[str, Path]) -> None:
    held = recipes(parents)
    engine.load(held["a"])
    first = engine.answer(QUESTIONS)
    engine.answer(QUESTIONS[:3])
    engine.load(held["b"])
    other = engine.answer(QUESTIONS)
    engine.load(held["a"])
    assert engine.answer(QUESTIONS) == first
    assert other != first


def test_sampled_answers_to_long_prompts_depend_on_their_seeds_alone(engine: Engine, parents: dict[str, Path]) -> None:
    """Whatever else is in the batch, and in which order: prompts that exceed a batch, together or one alone."""
    engine.load(recipes(parents)["half"])
    asked = [
        Question(
            tuple(5 + (7 * row + 3 * place) % 90 for place in range(length)),
            decoding=Decoding(12, (), temperature=0.9, top_p=0.9, repetition_penalty=1.2, seed=row),
        )
        for row, length in enumerate([220, 5, 90, 200, 180, 230, 60, 210, 190, 240])
    ]
    answers = engine.answer(asked)
    assert len({answer.text for answer in answers}) > 5
    assert engine.answer([*QUESTIONS, *asked[::-1]])[len(QUESTIONS) :] == answers[::-1]
    assert [engine.answer([question])[0] for question in asked[:3]] == answers[:3]


# -------------------------------------------------------------------- vLLM alone
@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (Question(PROMPT * 8, decoding=Decoding(16, ())), "exceeds this limit"),
        (Question((10**6,), decoding=Decoding(16, ())), "out of vocabulary"),
        (Question(PROMPT, decoding=Decoding(16, (), temperature=0.5, top_p=0.0)), "top_p must be in (0, 1]"),
        (Question((), (7,)), "cannot be empty"),
    ],
    ids=["long", "vocabulary", "decoding", "empty"],
)
def test_a_question_that_vllm_refuses_is_named_and_the_engine_stays_sound(
    refused: Question, why: str, vllm: VllmEngine, parents: dict[str, Path]
) -> None:
    vllm.load(recipes(parents)["a"])
    with pytest.raises(QuestionRefused) as error:
        vllm.answer([*QUESTIONS, refused])
    assert error.value.question_id == refused.id and why in error.value.why
    assert len(vllm.answer(QUESTIONS)) == len(QUESTIONS)


def test_settings_that_vllm_refuses_are_refused_for_good_in_its_words(parents: dict[str, Path], tmp_path: Path) -> None:
    workers = Workers(gpus=0.0, engine=EngineSettings(max_model_len=100_000))
    boot = Boot(parents["a"], parents["a"], "float32", workers, 2)
    with pytest.raises(ValueError) as error:
        VllmEngine(boot, Serving("t", None, (0,), 100_000, "x", (), "a", str(parents["a"])), tmp_path)
    assert is_final(error.value)
    assert "max_model_len (100000) is greater than the derived max_model_len" in words(error.value)


def reference(folder: Path) -> list[Answer]:
    """The first six questions by transformers, in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    found = []
    for question in QUESTIONS[:6]:
        tokens = torch.tensor([[*question.context, *question.continuation]])
        with torch.no_grad():
            logprobs = model(tokens).logits[0].log_softmax(-1)
        places = range(len(question.context) - 1, tokens.shape[1] - 1)
        own = [float(logprobs[place, tokens[0, place + 1]]) for place in places]
        greedy = all(int(logprobs[place].argmax()) == int(tokens[0, place + 1]) for place in places)
        found.append(Answer(question.id, sum(own), greedy))
    return found


@pytest.mark.parametrize("name", ["a", "b", "half"])
def test_the_engine_answers_as_the_recipes_weights_do(
    vllm: VllmEngine, parents: dict[str, Path], name: str, tmp_path: Path
) -> None:
    recipe = recipes(parents)[name]
    vllm.load(recipe)
    expected = reference(materialise(recipe, tmp_path / "merged", tmp_path / "scratch"))
    for mine, theirs in zip(vllm.answer(QUESTIONS)[:6], expected, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert mine.is_greedy == theirs.is_greedy


def test_logits_that_are_nan_are_told_and_not_tripped_over(
    vllm: VllmEngine, parents: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(parents["a"], tmp_path / "overflowing")
    tensors = load_file(tmp_path / "overflowing" / "model.safetensors")
    # Finite, and too much for float32 once it is multiplied: what a bad merge does in float16.
    tensors["model.norm.weight"].fill_(3e38)
    tensors["lm_head.weight"].fill_(3e38)
    save_file(tensors, tmp_path / "overflowing" / "model.safetensors", {"format": "pt"})
    vllm.load_checkpoint(tmp_path / "overflowing")
    answers = vllm.answer([question for question in QUESTIONS if question.decoding is None])
    assert all(answer.logprob is not None and math.isnan(answer.logprob) for answer in answers)


def test_a_continuation_of_nothing_is_certain(vllm: VllmEngine, parents: dict[str, Path]) -> None:
    vllm.load(recipes(parents)["a"])
    (answer,) = vllm.answer([Question(PROMPT, ())])
    assert answer.logprob == 0 and answer.is_greedy


def test_more_choices_than_vllm_takes_at_once(vllm: VllmEngine, parents: dict[str, Path]) -> None:
    vllm.load(recipes(parents)["a"])
    many = [Question(PROMPT, (token,)) for token in range(1, 90)]
    more = [*many, *(Question(PROMPT[1:], (token,)) for token in range(1, 90))]
    apart = {question.id: vllm.answer([question])[0].logprob for question in (more[0], more[100])}
    together = {answer.question_id: answer.logprob for answer in vllm.answer(more)}
    for key, value in apart.items():
        assert together[key] == pytest.approx(value, abs=1e-4)


def test_checkpoints_are_written_only_to_be_kept(vllm: VllmEngine, parents: dict[str, Path], tmp_path: Path) -> None:
    recipe = recipes(parents)["half"]
    vllm.load(recipe)
    answers = vllm.answer(QUESTIONS)
    assert not weights_in(vllm.scratch)
    vllm.keep = tmp_path / "kept"
    try:
        vllm.load(recipe)
        assert (tmp_path / "kept" / recipe.id / "model.safetensors").exists()
        assert vllm.answer(QUESTIONS) == answers
        assert len(list((tmp_path / "kept").iterdir())) == 1
    finally:
        vllm.keep = None


def weights_in(folder: Path) -> list[Path]:
    """Weight files that were written there; plain folders have links to the parents' own."""
    return [file for file in folder.rglob("*.safetensors") if not file.is_symlink()]


def spoilt(parents: dict[str, Path], folder: Path, change: str) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(parents["b"], folder)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    if change == "missing":
        del tensors[name]
    elif change == "misshapen":
        tensors[name] = tensors[name][:-1].contiguous()
    elif change == "foreign":
        tensors["model.layers.9.self_attn.k_proj.weight"] = tensors[name].clone()
    else:
        tensors[name][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "layers.1.self_attn.k_proj.weight is missing"),
        ("misshapen", "layers.1.self_attn.k_proj.weight has shape"),
        ("foreign", r"layers.9.self_attn.k_proj.weight has shape \[32, 64\] and is no tensor of the model"),
        ("nan", "model.layers.1.self_attn.k_proj.weight has NaN or Inf"),
    ],
)
def test_weights_that_do_not_arrive_whole_are_refused_and_leave_the_engine_usable(
    vllm: VllmEngine, parents: dict[str, Path], tmp_path: Path, change: str, message: str
) -> None:
    held = recipes(parents)["a"]
    vllm.load(held)
    before = vllm.answer(QUESTIONS)
    with pytest.raises(InvalidWeights, match=message):
        vllm.load_checkpoint(spoilt(parents, tmp_path / "spoilt", change))
    vllm.load(held)
    assert vllm.answer(QUESTIONS) == before


def test_an_impossible_merge_is_refused_in_mergekits_words(
    vllm: VllmEngine, parents: dict[str, Path], tmp_path: Path
) -> None:
    a, b = sources(parents)
    impossible = Recipe("nearswap", ((a, {}), (b, {})), None, {}, "float32")
    with pytest.raises(InvalidWeights, match="requires a base input"):
        vllm.load(impossible)
    assert not weights_in(vllm.scratch)
