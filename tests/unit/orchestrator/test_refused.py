"""A question that the engine refuses is named as its user knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.errors import UserError
from orchestrator.core.records import Decoding, Question
from orchestrator.results.layout import Layout
from orchestrator.stages.evaluate import naming_refused
from orchestrator.stages.open import Round
from tasks.evaluation.suites import SuiteTask
from tasks.serving.engine import QuestionRefused


def test_a_refused_question_is_named_with_its_task_and_document() -> None:
    asked = [Question((number,), decoding=Decoding(4, ())) for number in range(3)]
    suites = [
        SuiteTask("o", "first", None, [], 1, asked[:1], [0]),
        SuiteTask("p", "second", None, [], 2, asked, [4, 5, 6]),
    ]
    evaluated = Round({}, suites, [], Layout(Path("nowhere")))
    with pytest.raises(UserError) as error, naming_refused(evaluated):
        raise QuestionRefused(asked[2].id, "top_p must be in (0, 1], got 0.0")
    assert str(error.value).startswith("p: second, document 6: no recipe can answer it, because the engine refuses")
    assert "top_p must be in (0, 1], got 0.0" in str(error.value)
