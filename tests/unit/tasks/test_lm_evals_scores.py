"""Scores are lm-eval's own to the last bit: its evaluator and ours, on the same answers to the same tasks."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import lm_eval
import pytest

from orchestrator.core.records import Answer, Question
from tasks.evaluation.judge import score_task
from tests.helpers.tasks import CHOICE, TEXT, lm, load, rows, write_task

CHOICES = CHOICE.split("metric_list")[0]
TEXTS = TEXT.split("metric_list")[0].replace("max_gen_toks: 8", "max_gen_toks: 8, do_sample: false")
LIKELIHOOD = (
    CHOICES.replace("multiple_choice", "loglikelihood")
    .replace("doc_to_choice: choices", "")
    .replace("doc_to_target: answer", 'doc_to_target: " {{choices[answer]}}"')
)
ROLLING = 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{question}}"\n'
TWO = {"choices": lambda i: ["no", "yes"], "answer": lambda i: int(i % 3 == 0)}
SEVERAL = {"answer": lambda i: [i % 4, (i + 1) % 4]}
WORDS = {"answer": lambda i: ["1 mg", "2 mg", "5 mg", "9 mg"][i % 4]}
REFERENCES = {"answer": lambda i: [str(i % 10), "7"]}
TEXT_ANSWER = {"answer": lambda i: str(i % 10)}
FILTERS = """
filter_list:
  - {name: digits, filter: [{function: regex, regex_pattern: "([0-9])"}, {function: take_first}]}
  - {name: most, filter: [{function: regex, regex_pattern: "([0-9])"}, {function: majority_vote}, {function: take_first}]}
repeats: 3
"""
CODE = """
import random
import numpy as np
def judge(doc, results):
    said = str(results[0]).split()[0]
    return {"exact_match": float(said == str(doc["answer"])), **({"some": 1.0} if said < "5" else {})}
def judge_all(doc, results):
    return {"long": [True, str(results[0]).split()[0] > "4"]}
def label(doc):
    return np.int64(doc["answer"])
def mixed(docs):
    order = np.random.permutation(len(docs))
    return docs.select(order).map(lambda doc: {"choices": random.sample(doc["choices"], 4)})
def weighted(items):
    return float(np.average(items, weights=np.arange(1, len(items) + 1)))
def verdicts(items):
    flat = [each for item in items for each in item]
    return sum(flat) / len(flat)
"""


def metrics(*names: str, aggregation: str = "", more: str = "") -> str:
    listed = [
        f"{{metric: {name}{', aggregation: ' + aggregation if aggregation else ''}, higher_is_better: true{more}}}"
        for name in names
    ]
    return f"metric_list: [{', '.join(listed)}]\n"


def replies(question: Question) -> Answer:
    number = (
        zlib.crc32(
            str((question.context, question.continuation, question.decoding and question.decoding.seed)).encode()
        )
        % 1000
    )
    if question.decoding:
        return Answer(question.id, text=f" {number % 10} mg")
    return Answer(question.id, logprob=-0.01 * number - 0.5, is_greedy=number % 3 == 0)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (CHOICES + metrics("acc", "acc_norm", "acc_bytes", "exact_match", "f1", "mcc", "brier_score"), TWO),
        (CHOICES.replace("doc_to_target: answer", "doc_to_target: !function utils.label") + metrics("acc"), {}),
        (CHOICES + metrics("acc_mutual_info", "acc"), {}),
        (CHOICES + metrics("acc", "acc_norm", "exact_match"), SEVERAL),
        (CHOICES + metrics("acc", "acc_norm"), WORDS),
        (CHOICES + metrics("acc", aggregation="median"), {}),
        (CHOICES + metrics("f1", more=", hf_evaluate: true, average: weighted"), TWO),
        (CHOICES.replace('"{{question}}\\nAnswer:"', "answer").replace("doc_to_target: answer", "doc_to_target: question") + metrics("acc"), {}),
        (CHOICES + metrics("acc") + "fewshot_split: test\nnum_fewshot: 2\nfewshot_config: {sampler: first_n}\n", {}),
        (CHOICES, {}),
        (LIKELIHOOD + metrics("acc", "perplexity"), {}),
        (ROLLING, {}),
        (TEXTS + metrics("exact_match", more=', ignore_case: true, regexes_to_ignore: [" mg"]'), TEXT_ANSWER),
        (TEXTS + metrics("exact_match"), REFERENCES),
        (TEXTS + metrics("bleu", "chrf", "ter"), TEXT_ANSWER),
        (TEXTS + metrics("acc", aggregation="!function utils.pairs"), TEXT_ANSWER),
        (TEXTS + metrics("exact_match") + "doc_to_choice: choices\n", {}),
        (TEXTS.replace("do_sample: false", "do_sample: true, temperature: 1.0") + metrics("exact_match") + FILTERS, TEXT_ANSWER),
        (TEXTS + "process_results: !function utils.judge\n" + metrics("exact_match", "some", aggregation="mean"), TEXT_ANSWER),
        (TEXTS + "process_results: !function utils.judge_all\n" + metrics("long", aggregation="!function utils.verdicts"), TEXT_ANSWER),
        (TEXTS + "process_results: !function utils.judge\n" + metrics("exact_match", "some", aggregation="!function utils.weighted"), TEXT_ANSWER),
    ],
)  # fmt: skip
def test_scores_are_lm_evals(settings: str, changes: Any, tmp_path: Path) -> None:
    code = CODE + "def pairs(items):\n    return sum(gold in said for gold, said in items) / len(items)\n"
    write_task(tmp_path, settings, rows(13, **changes), code)
    direction = "minimize" if settings == ROLLING else "maximize"
    (suite,) = load(tmp_path, model := lm(replies), direction=direction)
    suite.metrics = [(metric, each.name) for metric in suite.task.aggregation() for each in suite.task._filters]
    ours = {
        tuple(key.split(",")) if "," in key else (key, "none"): value
        for key, value in score_task(suite, model).metrics.items()
    }
    theirs = lm_eval.evaluate(lm=lm(replies), task_dict={"own": suite.task}, bootstrap_iters=0)["results"]["own"]
    expected = {
        tuple(key.split(",")): value
        for key, value in theirs.items()
        if isinstance(value, int | float) and "_stderr" not in key and "," in key
    }
    assert ours == expected and len(ours) >= 1


def test_what_a_task_draws_at_random_is_the_same_again(tmp_path: Path) -> None:
    found = []
    for name in ("first", "again"):
        write_task(tmp_path / name, CHOICE + "process_docs: !function utils.mixed\n", rows(13), CODE)
        (suite,) = load(tmp_path / name, lm())
        found.append([question.id for question in suite.questions])
    assert found[0] == found[1]
