"""Generation tasks are lm-eval's, and generate as the paper does."""

from __future__ import annotations

from pathlib import Path

from orchestrator.config.generation import Generation
from tasks.evaluation.requests import cut_of
from tasks.generation.sources import FILES, READERS
from tasks.generation.task import GenerationTask, load_task, share
from tests.helpers.clinical import make_problem_list


def test_the_tasks_generate_as_the_paper_does(tmp_path: Path) -> None:
    make_problem_list(tmp_path)
    task = load_task("here", "clinical_problem_list", Generation(data={"clinical_problem_list": str(tmp_path)}))
    task.build_all_requests()
    (instance,) = task.instances
    prompt, settings = instance.args
    assert prompt.startswith("List the problems") and prompt.endswith("T 39.1\n\nProblems:")
    wanted = {
        "temperature": 0.3,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
        "max_gen_toks": 8192,
        "max_context_toks": 8192,
    }
    assert settings == {"until": [], "do_sample": True, **wanted}
    assert cut_of(instance) == (instance.doc["input"], "right")
    assert set(FILES) == set(READERS)


def test_nothing_checked_is_nothing_unsupported() -> None:
    assert share([(1, 2), (0, 0), (3, 3)]) == 0.8
    assert share([(0, 0)]) == 1.0


def test_the_task_is_lm_evals() -> None:
    from lm_eval.api.task import ConfigurableTask

    assert issubclass(GenerationTask, ConfigurableTask)
