"""Documents that cannot be scored are refused before anything is asked, and labels that look wrong are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask

from orchestrator.core.errors import UserError
from tasks.evaluation.labels import check_documents
from tasks.evaluation.ledger_lm import LedgerLM
from tests.helpers.tasks import CHOICE, TEXT, lm, load, rows, write_task

LETTERED = CHOICE.replace("doc_to_choice: choices", "doc_to_choice: [A, B, C, D]")
LIKELIHOOD = CHOICE.replace("output_type: multiple_choice", "output_type: loglikelihood").replace(
    "doc_to_choice: choices\n", ""
)
ROLLING = 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{question}}"\n'
INDEXED = TEXT + "doc_to_choice: choices\n"
CUSTOM = "process_results: !function utils.judge\n"
FOUR = "which names none of its 4 choices (0 to 3)"


@pytest.fixture(scope="module")
def model() -> LedgerLM:
    return lm()


def in_memory(settings: str, data: list[dict[str, Any]]) -> ConfigurableTask:
    """The task of `write_task`, without files."""
    own = CUSTOM in settings
    config = yaml.safe_load(settings.replace(CUSTOM, ""))
    config |= {"process_results": (lambda doc, results: {"acc": 1.0})} if own else {}
    rows_ = Dataset.from_list(data)
    return ConfigurableTask(
        config={"task": "own", "test_split": "test", "custom_dataset": lambda **_: {"test": rows_}, **config}
    )


def check(task: ConfigurableTask) -> list[str]:
    return check_documents(task, range(len(task.eval_docs)))


def last(value: Any, otherwise: Any = None) -> Any:
    """The value in the last of eight rows; else `otherwise`, or the row's number modulo 4."""
    return lambda i: value if i == 7 else i % 4 if otherwise is None else otherwise


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (CHOICE, {"answer": lambda i: 1 + i % 4}, f"document 3 has the label 4, {FOUR} (2 of 8 documents are like this); the labels count from 1: write doc_to_target: \"{{{{answer - 1}}}}\" in the task file"),
        (CHOICE, {"answer": last(9)}, f"document 7 has the label 9, {FOUR}; correct the data, or leave such documents out with process_docs"),
        (CHOICE, {"answer": last(-1)}, f"document 7 has the label -1, {FOUR}"),
        (CHOICE, {"answer": last(-100)}, "document 7 has the label -100"),
        (CHOICE, {"answer": last(None)}, "document 7 has no label (null)"),
        (CHOICE.replace("answer\n", '"{{answer}}"\n'), {"answer": last(-1)}, "document 7 has the label '-1', which names none of its 4 choices"),
        (CHOICE, {"answer": lambda i: str(i % 4)}, "document 0 has the label '0', which names none of its 4 choices (8 of 8 documents are like this); the labels are numbers as text: write doc_to_target: \"{{answer}}\""),
        (CHOICE, {"answer": lambda i: float(i % 4)}, "document 0 has the label 0.0, which is neither the number nor the text of a choice (8 of 8 documents are like this); the labels are decimals: write doc_to_target: \"{{answer | int}}\""),
        (CHOICE, {"answer": lambda i: "ABCD"[i % 4]}, "document 0 has the label 'A', which names none of its 4 choices (8 of 8 documents are like this); the labels are letters: write doc_to_choice: [A, B, C, D]"),
        (LETTERED, {"answer": lambda i: "ABCDE"[i % 5]}, "document 4 has the label 'E', which names none of its 4 choices"),
        (LETTERED, {"answer": lambda i: "abcd"[i % 4]}, "document 0 has the label 'a'"),
        (CHOICE, {"answer": lambda i: ["1 mg", "2 mg", "3 mg"][i % 3]}, "document 2 has the label '3 mg'"),
        (CHOICE, {"answer": lambda i: [i % 4, 5] if i else [0]}, "document 1 has the label 5, which names none of its 4 choices (0 to 3)"),
        (CHOICE, {"answer": lambda i: [] if i == 3 else [1]}, "document 3 has an empty list of labels"),
        (CHOICE, {"choices": lambda i: [] if i == 5 else ["a", "b", "c", "d"]}, "document 5 has no choices"),
        (CHOICE, {"choices": lambda i: ["a", "", "c", "d"] if i == 5 else ["a", "b", "c", "d"]}, "document 5 has an empty choice 1"),
        (CHOICE, {"choices": lambda i: None if i == 5 else ["a", "b", "c", "d"]}, "document 5 has choices that are no list, but NoneType"),
        (CHOICE + CUSTOM, {"choices": lambda i: [] if i == 5 else ["a", "b", "c", "d"]}, "document 5 has no choices"),
        (INDEXED, {"answer": last(4)}, f"document 7 has the label 4, {FOUR}"),
        (INDEXED, {"answer": last(-1)}, f"document 7 has the label -1, {FOUR}"),
        (INDEXED, {"answer": lambda i: "1 mg"}, "document 0 has the label '1 mg', which is neither the number nor the text"),
        (CHOICE.replace("answer\n", "\"{{'ABCD'.index(answer)}}\"\n"), {"answer": lambda i: "ABCd"[i % 4]}, "document 3 has a label or choices that cannot be read: ValueError ("),
        (TEXT, {"answer": lambda i: {"text": ["x"]}}, "document 0 has a target with keys, and lm-eval would compare with its text; name the text in doc_to_target (8 of 8 documents are like this)"),
        (TEXT, {"answer": last(None, "x")}, "document 7 has no target (null)"),
        (TEXT.replace("answer\n", '"{{answer}}"\n'), {"answer": last(None, "x")}, "document 7 has no target (null)"),
        (TEXT, {"answer": lambda i: ["x", None] if i == 2 else ["x"]}, "document 2 has a target in its list that is null"),
        (TEXT, {"answer": lambda i: [] if i == 2 else ["x"]}, "document 2 has an empty list of targets"),
        (TEXT.replace("answer\n", '"{{answer}}"\n'), {"answer": lambda i: "['a', 'b']" if i == 6 else "x"}, "document 6 has a list of targets, but the first document has one"),
        (TEXT.replace("answer\n", '"{{answer}}"\n'), {"answer": lambda i: "['a', 'b']" if i == 0 else "x"}, "document 1 has one target, but the first document has a list"),
        (LIKELIHOOD, {"answer": last("", "x")}, "document 7 has the target '', but a log-probability is that of a text"),
        (LIKELIHOOD, {"answer": lambda i: i}, "document 0 has the target 0"),
        (ROLLING, {"question": last("", "a text")}, "document 7 has the target ''"),
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_scored_is_refused(settings: str, changes: Any, message: str) -> None:
    with pytest.raises(UserError) as refused:
        check(in_memory(settings, rows(8, **changes)))
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (CHOICE, {}),
        (CHOICE, {"answer": lambda i: ["1 mg", "9 mg"][i % 2]}),
        (CHOICE, {"answer": lambda i: [i % 4, 0]}),
        (CHOICE, {"choices": lambda i: ["no", "yes"], "answer": lambda i: i % 2 == 0}),
        (CHOICE.replace("answer\n", '"{{answer}}"\n'), {"answer": lambda i: str(i % 4)}),
        (CHOICE.replace("answer\n", "0\n"), {}),
        (CHOICE.replace("doc_to_text: \"{{question}}\\nAnswer:\"", "doc_to_text: answer").replace("doc_to_target: answer", "doc_to_target: question"), {}),
        (CHOICE + CUSTOM, {"answer": lambda i: i}),
        (INDEXED, {}),
        (TEXT, {"answer": lambda i: ["x", "y"][: 1 + i % 2]}),
        (TEXT, {"answer": lambda i: 0.5 * i}),
        (TEXT + CUSTOM, {"answer": lambda i: None}),
        (LIKELIHOOD, {"answer": lambda i: " word"}),
        (ROLLING, {}),
    ],
    ids=["numbers", "words", "lists", "bools", "template", "constant", "several inputs", "own reading of labels", "indexed texts", "several targets", "targets that are numbers", "own reading of targets", "likelihood", "rolling"],
)  # fmt: skip
def test_what_lm_eval_can_score_is_taken(settings: str, changes: Any) -> None:
    assert check(in_memory(settings, rows(8, **changes))) == []


FIVE = {"choices": lambda i: ["a", "b", "c", "d", "e"]}


@pytest.mark.parametrize(
    ("number", "settings", "changes", "expected"),
    [
        (40, CHOICE, {**FIVE, "answer": lambda i: 1 + i % 4}, "x, own: no label of 40 documents is 0, the first choice; if labels count from 1 in the data, every answer is compared with the wrong choice."),
        (20, CHOICE, {"answer": 2}, "x, own: all of 20 documents have the label 2."),
        (8, CHOICE, {**FIVE, "answer": lambda i: 1 + i % 4}, None),
        (8, CHOICE, {"question": lambda i: f"Which dose suits case {i % 6}?", "choices": lambda i: ["1", "2", "3", "4"]}, "x, own: 2 of 8 documents have the same question as an earlier one."),
        (8, CHOICE, {"choices": lambda i: ["a", "b", "c", "a" if i < 2 else "d"]}, "x, own: 2 of 8 documents have the same choice twice."),
        (8, TEXT.replace("doc_to_target: answer", "doc_to_target: anwser"), {}, "x, own: the data has no column 'anwser' (did you mean 'answer'?), so doc_to_target is this word in every document."),
        (8, CHOICE.replace("{{question}}", "{{question}} {{note}}"), {"note": lambda i: None if i < 3 else "none"}, "x, own: 3 of 8 documents lack a value (null), and their prompts say None."),
    ],
)  # fmt: skip
def test_what_looks_wrong_is_named(
    number: int, settings: str, changes: Any, expected: str | None, tmp_path: Path, model: LedgerLM
) -> None:
    write_task(tmp_path, settings, rows(number, **changes))
    (suite,) = load(tmp_path, model)
    assert suite.notes == ([expected] if expected else [])


def test_few_evaluated_documents_do_not_hide_how_labels_count(tmp_path: Path, model: LedgerLM) -> None:
    write_task(tmp_path, CHOICE, rows(40, answer=lambda i: 1 + i % 4))
    with pytest.raises(
        UserError,
        match=r"objectives\.x\.tasks\[0\] \(own\): document 3 has the label 4, .* \(10 of 40 documents are like this\)",
    ):
        load(tmp_path, model, limit=2)


def test_few_shot_examples_are_checked_too(tmp_path: Path, model: LedgerLM) -> None:
    settings = CHOICE + "fewshot_split: train\nnum_fewshot: 2\n"
    write_task(
        tmp_path, settings, rows(8), train=rows(8, question=lambda i: f"An example {i}?", answer=lambda i: i % 4 - 1)
    )
    with pytest.raises(UserError, match=r"few-shot example 0 has the label -1, which names none of its 4 choices"):
        load(tmp_path, model)
    examples = rows(8, question=lambda i: f"Which dose suits case {i}?" if i < 3 else f"An example {i}?")
    write_task(tmp_path, settings + "fewshot_config: {sampler: first_n}\n", rows(8), train=examples)
    (suite,) = load(tmp_path, model)
    assert suite.notes == ["x, own: 2 of 8 questions are among their own few-shot examples."]


def test_a_wrong_label_of_the_first_document_is_refused_as_lm_eval_meets_it(tmp_path: Path, model: LedgerLM) -> None:
    write_task(tmp_path, CHOICE, rows(8, answer=4))
    with pytest.raises(UserError, match=r"first document, which has a label that names none of its choices"):
        load(tmp_path, model)
