"""Chat templates as people have them: system turns, arguments, reasoning; as lm-eval's own model handles them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import postprocess_generated_text
from transformers import AutoTokenizer

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.records import Answer, Serving
from orchestrator.stages.publish import publish
from orchestrator.stages.score import score
from orchestrator.stats.scores import Reasoning
from tasks.evaluation.judge import score_task
from tasks.evaluation.ledger_lm import LedgerLM, generated_text
from tasks.evaluation.requests import end_thinking
from tasks.evaluation.suites import SuiteTask, load_suites
from tasks.evaluation.thinking import reasoning_in
from tests.helpers.paths import INSTRUCT
from tests.helpers.sweeps import content
from tests.helpers.tasks import TEXT, answered_sweep, rows, write_task
from tests.helpers.templates import DEAF, QWEN3, REPLY, STRICT, TURNS

TASK = {
    "custom_dataset": "!function utils.rows", "output_type": "multiple_choice", "test_split": "test",
    "fewshot_split": "test", "doc_to_text": "{{question}}", "doc_to_choice": ["yes", "no"], "doc_to_target": 0,
    "description": "Answer well.", "metric_list": [{"metric": "acc"}],
}  # fmt: skip
Load = Callable[..., SuiteTask]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a task as an objective does; `template` is the tokenizer's, `task` changes the task file."""
    monkeypatch.setenv("MERGEFRONT_TRUST", str(tmp_path))
    rows = "from datasets import Dataset\nROWS = [{'question': f'Is {i} a number?'} for i in range(4)]\n"
    (tmp_path / "utils.py").write_text(rows + "def rows(**_): return {'test': Dataset.from_list(ROWS)}\n")

    def load(template: Any, task: dict[str, Any] | None = None, **objective: Any) -> SuiteTask:
        text = yaml.safe_dump({"task": "own", **TASK, **(task or {})}).replace(
            "'!function utils.rows'", "!function utils.rows"
        )
        (tmp_path / "own.yaml").write_text(text)
        tokenizer = AutoTokenizer.from_pretrained(INSTRUCT)
        tokenizer.chat_template = template
        asked = {"tasks": ["own"], "limit": 2, "apply_chat_template": True, **objective}
        config = SweepConfig.model_validate(content(objectives={"x": asked}, include_path=[str(tmp_path)]))
        lm = LedgerLM(Serving("t", None, (0,), 512, "x", (), "instruct", "/nowhere"), tokenizer)
        (suite,) = load_suites(config.objectives, config, lm)
        suite.task.lm = lm
        return suite

    return load


GENERATED = {"output_type": "generate_until", "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 8},
             "metric_list": [{"metric": "exact_match"}], "doc_to_target": "yes", "doc_to_choice": None}  # fmt: skip


def prompt(suite: SuiteTask) -> str:
    return str(suite.task.instances[0].args[0])


@pytest.mark.parametrize("template", [STRICT, DEAF, TURNS + REPLY, QWEN3], ids=["strict", "deaf", "chatml", "qwen3"])
@pytest.mark.parametrize("shots", [0, 2])
def test_prompts_are_those_of_lm_evals_own_model(load: Load, template: str, shots: int) -> None:
    suite = load(template, num_fewshot=shots, system_prompt="You are a doctor.")
    theirs = SimpleNamespace(tokenizer=suite.task.lm.tokenizer, chat_template_args={})
    asked = [instance.args[0] for instance in suite.task.instances]
    suite.task.build_all_requests(
        limit=2, system_instruction="You are a doctor.", apply_chat_template=True, fewshot_as_multiturn=True,
        chat_template=lambda *turns, **more: HFLM.apply_chat_template(theirs, *turns, **more),
    )  # fmt: skip
    assert asked == [instance.args[0] for instance in suite.task.instances]
    left_out = template in (STRICT, DEAF)
    assert any("takes no system turn" in note for note in suite.notes) == left_out
    assert ("You are a doctor.\n\nAnswer well." in asked[0]) != left_out


def test_a_system_prompt_without_a_template_begins_the_prompt(load: Load) -> None:
    suite = load(None, apply_chat_template=False, system_instruction="You are a doctor.")
    assert prompt(suite).startswith("You are a doctor.\n\nAnswer well.") and not suite.notes


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no template": (None, {}, "the tokenizer of instruct has no chat template; set tokenizer"),
    "no default": (
        {"rag": QWEN3, "tool_use": QWEN3},
        {},
        r"several chat templates \(rag, tool_use\), and none is called",
    ),
    "no Jinja": ("{% if %}", {}, "the chat template of instruct is no Jinja"),
    "turns that do not alternate": (
        STRICT,
        {"task": {**GENERATED, "doc_to_target": ""}, "num_fewshot": 2},
        r"objectives.x.tasks\[0\] \(own\): the chat template of instruct refuses a prompt \(Roles must alternate\); set",
    ),
    "a template that fails": (TURNS + "{{ 1 + none }}", {}, "refuses a prompt .unsupported operand"),
    "a template that reaches out": ("{{ messages.__class__.__mro__ }}", {}, "refuses a prompt .access to attribute"),
    "misspelt argument": (
        QWEN3,
        {"chat_template_kwargs": {"enable_thinkin": False}},
        "objectives.x.chat_template_kwargs.enable_thinkin: the chat template of instruct has no such argument; did you mean",
    ),
    "ignored argument": (TURNS + REPLY, {"chat_template_args": {"enable_thinking": False}}, "has no such argument"),
    "argument of transformers": (QWEN3, {"chat_template_kwargs": {"tokenize": True}}, "has no such argument"),
    "reasoning before choices": (
        QWEN3,
        {"chat_template_kwargs": {"enable_thinking": True}, "think_end_token": "</think>"},
        r"\(own\): given choices are scored, which leaves no place for reasoning",
    ),
    "no token": (QWEN3, {"task": GENERATED, "think_end_token": 151668}, "think_end_token 151668 is no token's id"),
    "a prompt that cannot be made": (
        QWEN3,
        {"task": {"doc_to_text": "{{ question ~ 1 // ('0' in question) }}"}},
        "prompts of task 'own' cannot be made",
    ),
    "no data": (
        QWEN3,
        {"task": {"custom_dataset": None, "dataset_path": "no/where"}},
        "its data is looked for on the hub",
    ),
    "a task file that is wrong": (
        QWEN3,
        {"task": {"test_split": "tset"}},
        "could not be loaded .* correct its task file",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_is_refused_for_its_true_reason(load: Load, name: str) -> None:
    template, changes, expected = REFUSED[name]
    with pytest.raises(UserError, match=expected):
        load(template, **changes)


def test_a_named_template_that_is_the_default_is_used(load: Load) -> None:
    assert prompt(load({"default": STRICT, "tool_use": QWEN3})).endswith("<|im_start|>assistant\n")


def test_arguments_are_in_the_prompts_and_reasoning_that_is_not_handled_is_noted(load: Load) -> None:
    plain, off = load(QWEN3, GENERATED), load(QWEN3, GENERATED, chat_template_kwargs={"enable_thinking": False})
    assert prompt(off) == prompt(plain) + "<think>\n\n</think>\n\n" and not off.notes
    assert plain.questions[0].id != off.questions[0].id
    (note,) = plain.notes
    assert note.startswith("x, own: the chat template of instruct lets a reply begin with reasoning, which is scored")
    on = load(QWEN3, GENERATED, chat_template_kwargs={"enable_thinking": True}, think_end_token="</think>")
    assert on.notes == ["x, own: chat_template_kwargs.enable_thinking: True is what the template does anyway."]
    assert not load(QWEN3, GENERATED, think_end_token="</think>").notes
    (choices,) = load(QWEN3).notes
    assert "in whose place the choices are scored; if the models reason, set chat_template_kwargs" in choices


def test_a_stop_text_ends_the_reply_and_not_its_reasoning(load: Load) -> None:
    plain, cut = load(QWEN3, GENERATED), load(QWEN3, GENERATED, think_end_token="</think>")
    first, second = plain.questions[0].decoding, cut.questions[0].decoding
    assert first is not None and second is not None
    assert (first.stop, second.stop) == (("\n\n",), ()) and first.max_tokens == second.max_tokens


REPLIES = [
    "<think>\nShort.\n\nLong.\n</think>\n\nYes, 5 mg.\n\nMore", "Yes.\n\nNo", "<think>\nIt never\n\nends", "", "</think>",
    "<think>a</think>b</think> c", "a</think>\n\n\n\nb", "a </think>  b\n", "x</THINK>y",
]  # fmt: skip


@pytest.mark.parametrize("text", REPLIES)
@pytest.mark.parametrize("until", [["\n\n"], [], "m"])
def test_replies_are_cut_as_lm_eval_cuts_them(text: str, until: Any) -> None:
    request = Instance("generate_until", {}, ("prompt", {"until": until}), 0, ("t", 0, 1))
    assert generated_text(request, Answer("q", text=text)) == postprocess_generated_text(text, until, None)
    end_thinking([request], "</think>")
    answer = Answer("q", text=text)
    assert generated_text(request, answer) == postprocess_generated_text(text, until, "</think>")
    thought = reasoning_in(request, answer)
    assert (thought is None) == ("</think>" not in text)
    assert thought is None or (text.startswith(thought) and thought.endswith("</think>"))


def test_a_token_that_ends_reasoning_is_kept_in_the_text(load: Load) -> None:
    """Tokens that a tokenizer calls special are left out of generated texts: there would be nothing to cut at."""
    ordinary = load(QWEN3, GENERATED, think_end_token="</think>").questions[0]
    special = load(QWEN3, GENERATED, think_end_token="<|im_end|>").questions[0]
    assert ordinary.decoding is not None and ordinary.decoding.skip_special_tokens
    assert special.decoding is not None and not special.decoding.skip_special_tokens
    number = AutoTokenizer.from_pretrained(INSTRUCT).convert_tokens_to_ids("<|im_end|>")
    for same in (number, str(number)):
        assert load(QWEN3, GENERATED, think_end_token=same).questions[0].id == special.id


def test_the_share_of_reasoning_is_that_of_the_generated_tokens(load: Load) -> None:
    suite = load(QWEN3, GENERATED, think_end_token="</think>", limit=3)
    lm = suite.task.lm
    texts = ["<think>Hm.\n\nYes.</think>\n\nyes\n\nno", "yes", "<think>it never ends"]
    tokens = [len(lm.tok_encode(text, add_special_tokens=False)) for text in texts]
    answers = [
        Answer(question.id, text=text, tokens=count)
        for question, text, count in zip(suite.questions, texts, tokens, strict=True)
    ]
    found = score_task(suite, lm.knowing({answer.question_id: answer for answer in answers}))
    assert found.value == pytest.approx(2 / 3), "the first is cut to its reply, and a reply without reasoning is one"
    thought = len(lm.tok_encode("<think>Hm.\n\nYes.</think>", add_special_tokens=False))
    assert found.reasoning == Reasoning(tokens=thought, generated=sum(tokens), replies=3, unfinished=2)
    assert score_task(load(QWEN3), lm.knowing(scored_choices(load(QWEN3)))).reasoning is None


def scored_choices(suite: SuiteTask) -> dict[str, Answer]:
    return {question.id: Answer(question.id, -1.0 - i, False) for i, question in enumerate(suite.questions)}


def test_the_report_says_how_much_is_reasoning(tmp_path: Path) -> None:
    write_task(tmp_path, TEXT, rows(6))
    objectives = {"x": {"tasks": ["own"], "think_end_token": "answer"}, "y": {"tasks": ["own"]}}
    sweep = answered_sweep(tmp_path, objectives=objectives)  # the fake engine's replies are "fake answer …"
    (note,) = [note for note in score(sweep, sweep.grid).notes if "reasoning" in note]
    assert note.startswith("x: reasoning, cut before scoring, is ") and note.endswith("depending on the recipe.")
    publish(sweep, None)
    assert note in sweep.layout.report_md.read_text()
