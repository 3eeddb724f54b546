"""The engine's log-likelihoods are those of lm-eval's own Hugging Face model: `make prove`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from benchmarks.common import DATA, MODELS, start, suites
from tasks.evaluation.suites import SuiteTask

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not MODELS.is_dir(), reason="needs examples/smollm2/prepare.py"),
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets in MERGEFRONT_DATA"),
]
TASKS = ["medmcqa", "pubmedqa", "mmlu_anatomy_continuation"]


def choices(suite: SuiteTask, found: list[tuple[float, bool]]) -> dict[int, int]:
    """Document → index of its most probable choice."""
    scores: dict[int, list[float]] = defaultdict(list)
    for instance, (logprob, _) in zip(suite.task.instances, found, strict=True):
        scores[instance.doc_id].append(logprob)
    return {document: values.index(max(values)) for document, values in scores.items()}


@pytest.mark.timeout(3600)
def test_200_questions_each_of_real_benchmarks_in_float32(tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    lm, found = suites(TASKS, 200, 0, tmp_path, dtype="float32")
    lm.answer = start(MODELS / "instruct", MODELS / "instruct", tmp_path / "engine", "float32").answer
    theirs = HFLM(pretrained=str(MODELS / "instruct"), dtype="float32", device="cpu", batch_size=8, max_length=2047)
    for suite in found:
        ours = lm.loglikelihood(suite.task.instances)
        expected = theirs.loglikelihood(suite.task.instances, disable_tqdm=True)
        differences = [abs(mine[0] - other[0]) for mine, other in zip(ours, expected, strict=True)]
        same = choices(suite, ours) == choices(suite, expected)
        print(
            f"{suite.name}: {suite.documents} documents, {len(ours)} log-likelihoods, largest difference "
            f"{max(differences):.2e}, every choice equal: {same}"
        )
        assert max(differences) <= 1e-3
        assert same
        assert [greedy for _, greedy in ours] == [greedy for _, greedy in expected]
