"""Task files that need more than a model's text are refused before a program of theirs is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.errors import UserError
from tests.helpers.tasks import CHOICE, TEXT, lm, load, rows, write_task

OWN = TEXT.split("metric_list")[0]
JUDGED = (
    OWN
    + "process_results: !function utils.judge\nmetric_list: [{metric: hit, aggregation: mean, higher_is_better: true}]\n"
)
RUN = "raise AssertionError('a refused program was run')\n"
HUB = "which is code from the hub"


@pytest.mark.parametrize(
    ("settings", "code", "reason"),
    [
        (TEXT + "doc_to_image: picture\n", "", "has pictures or sound in its prompts, which the merged models cannot read"),
        (TEXT + "doc_to_audio: sound\n", "", "has pictures or sound"),
        (TEXT + "unsafe_code: true\n", "", "runs the code that a model has written, on this machine"),
        (TEXT + "test_split: null\n", "", "names neither test_split nor validation_split"),
        (TEXT + "use_prompt: promptsource:x\n", "", "needs the Python package promptsource, which is not installed"),
        (TEXT.replace("exact_match", "rouge"), "", f"has the metric rouge, {HUB}"),
        (TEXT.replace("exact_match", "exact_match, hf_evaluate: true"), "", f"has the metric exact_match, {HUB}"),
        (TEXT.replace("exact_match", "acc"), "", "has the metric acc, which lm-eval does not compute for output_type generate_until"),
        (CHOICE.replace("metric: acc", "metric: perplexity"), "", "has the metric perplexity, which lm-eval does not compute for output_type multiple_choice"),
        (CHOICE.replace("metric: acc", "metric: bypass"), "", "has the metric bypass, which is 999 whatever the answers are"),
        (JUDGED, RUN + "import no_such_package\ndef judge(doc, r): return {'hit': 1}", "needs the Python package no_such_package, which is not installed"),
        (JUDGED, RUN + "def judge(doc, r):\n    from no_such_package import x\n    return x", "needs the Python package no_such_package"),
        (JUDGED, RUN + "import evaluate\nrouge = evaluate.load('rouge')\ndef judge(doc, r): return {'hit': 1}", f"loads the metric rouge, {HUB}"),
        (JUDGED, RUN + "def score():\n    import evaluate\n    return evaluate.load('bleu')\ndef judge(doc, r): return score()", f"loads the metric bleu, {HUB}"),
    ],
)  # fmt: skip
def test_a_task_that_needs_more_than_text_is_refused(settings: str, code: str, reason: str, tmp_path: Path) -> None:
    write_task(tmp_path, settings, rows(4), code)
    with pytest.raises(UserError) as refused:
        load(tmp_path, lm())
    assert str(refused.value).startswith(f"objectives.x.tasks[0]: task 'own' {reason}")


def test_a_metric_by_name_that_is_not_computed_is_refused(tmp_path: Path) -> None:
    both = CHOICE.replace("[{metric: acc,", "[{metric: acc, aggregation: mean, higher_is_better: true}, {metric: bleu,")
    write_task(tmp_path, both, rows(4))
    assert load(tmp_path, lm())[0].metrics == [("acc", "none")]
    with pytest.raises(
        UserError, match=r"own has the metric bleu, which lm-eval does not compute .*name another metric"
    ):
        load(tmp_path, lm(), metric="bleu")


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    import no_such_package\nexcept ImportError:\n    pass\ndef judge(doc, r): return {'hit': 1.0}",
        "def unused():\n    import no_such_package, evaluate\n    evaluate.load('rouge')\ndef judge(doc, r): return {'hit': 1.0}",
    ],
    ids=["an import that is tried", "a function that does not score"],
)
def test_what_a_program_copes_without_is_not_needed(code: str, tmp_path: Path) -> None:
    write_task(tmp_path, JUDGED, rows(4), code)
    assert load(tmp_path, lm())[0].documents == 4


def test_a_program_that_exits_is_an_error_like_others(tmp_path: Path) -> None:
    write_task(tmp_path, JUDGED, rows(4), "raise SystemExit('a package is missing')\ndef judge(doc, r): return {}")
    with pytest.raises(UserError, match=r"could not be loaded \(SystemExit: a package is missing\)"):
        load(tmp_path, lm())
