"""100 real questions of each benchmark, answered by our engine and by lm-eval's own Hugging Face model over the same
files: `make prove`. QUESTIONS=3 in the environment asks fewer.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import DATA, MODELS, WORKERS, start, suites
from tasks.benchmarks.splits import FOLDER
from tasks.evaluation.judge import score_task
from tasks.evaluation.suites import SuiteTask
from tasks.serving.vllm_engine import VllmEngine

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not MODELS.is_dir(), reason="needs examples/smollm2/prepare.py"),
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets in MERGEFRONT_DATA"),
]
QUESTIONS = int(os.environ.get("QUESTIONS", "100"))
WRITTEN = 256
"""New tokens at most, on both sides: a CPU writes slowly."""
WINDOW = WORKERS.engine.max_model_len


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> VllmEngine:
    return start(MODELS / "instruct", MODELS / "instruct", tmp_path_factory.mktemp("engine"), "float32")


def lm_eval_hf(task: str, chat: bool) -> dict[str, Any]:
    """`lm_eval --model hf` on the same task files and data."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    # One place of vLLM's window stays free for the token that it writes at least.
    model = HFLM(
        pretrained=str(MODELS / "instruct"), dtype="float32", device="cpu", batch_size=8, max_length=WINDOW - 1
    )
    with contextlib.chdir(DATA):
        found = simple_evaluate(
            model=model,
            tasks=[task],
            num_fewshot=0,
            limit=QUESTIONS,
            apply_chat_template=chat,
            gen_kwargs=f"max_gen_toks={WRITTEN}",
            bootstrap_iters=0,
            task_manager=TaskManager(include_path=str(FOLDER)),
        )
    return dict(found)


def chosen(answers: list[Any]) -> Any:
    """The index of the most probable choice, or the text."""
    if isinstance(answers[0], str):
        return answers[0]
    logprobs = [logprob for logprob, _ in answers]
    return logprobs.index(max(logprobs))


def ours_by_document(suite: SuiteTask) -> dict[int, Any]:
    answers: dict[int, list[Any]] = defaultdict(list)
    for instance in suite.task.instances:
        answers[instance.doc_id].append(instance.resps[0])
    return {document: chosen(found) for document, found in answers.items()}


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("group", "chat"), [("medical", False), ("instruction", True)])
def test_scores_and_answers_are_those_of_lm_eval(group: str, chat: bool, engine: VllmEngine, tmp_path: Path) -> None:
    settings = {"metric": None, "gen_kwargs": {"max_gen_toks": WRITTEN}, "apply_chat_template": chat}
    settings |= {"expect": {"medqa_4options": 1272}} if group == "medical" else {}
    lm, tasks = suites([group], QUESTIONS, 0, tmp_path, "float32", **settings)
    lm.answer = engine.answer
    theirs = lm_eval_hf(group, chat)
    differing = []
    for suite in tasks:
        score = score_task(suite, lm)
        expected = theirs["results"][suite.name]
        mine = ours_by_document(suite)
        other = {
            sample["doc_id"]: chosen([each[0] for each in sample["resps"]]) for sample in theirs["samples"][suite.name]
        }
        differing += [f"{suite.name} document {d}" for d in mine if mine[d] != other[d]]
        print(f"{suite.name}: {len(mine)} documents, {score.metrics}, answers equal: {mine == other}")
        assert mine.keys() == other.keys()
        for (metric, filter_), value in zip(suite.metrics, score.metrics.values(), strict=True):
            assert value == pytest.approx(expected[f"{metric},{filter_}"], abs=1e-12), suite.name
    assert not differing
