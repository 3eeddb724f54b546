"""How recipes reply, in the report: the measures of each objective, and what a composite takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.report import replies
from orchestrator.report.sections import sections
from orchestrator.report.tables import NONE, tasks
from orchestrator.stages.score import score
from tests.helpers.tasks import CHOICE, TEXT, answered_sweep, rows, write_task

READ = (
    'filter_list: [{name: x, filter: [{function: regex, regex_pattern: "answer (\\\\d)"}, {function: take_first}]}]\n'
)


@pytest.mark.slow
def test_the_report_shows_how_recipes_reply(tmp_path: Path) -> None:
    folder = write_task(tmp_path, CHOICE.replace("doc_to_choice: choices", "doc_to_choice: [A, B, C, D]"), rows(8))
    head = "task: text\ndataset_path: clinic/own\ntest_split: test\n"
    (folder / "text.yaml").write_text(head + TEXT + READ)
    letters = [{"letter": f"letter {i}", "summary": "a fake answer"} for i in range(3)]
    (tmp_path / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in letters))
    own = {"file": "letters.jsonl", "prompt": "{{input}}", "input": "letter", "reference": "summary"}
    notes = {"tasks": ["letters"], "metric": "composite_without_bertscore", "gen_kwargs": {"max_gen_toks": 64}}
    objectives = {"both": {"tasks": ["own", "text"]}, "notes": notes}
    generation = {"own": {"letters": own}, "metrics": {"bleu": "corpus"}}
    sweep = answered_sweep(tmp_path, objectives=objectives, generation=generation)
    board = score(sweep, sweep.grid)

    table = replies.table(board, "both")
    names = ["empty", "at_limit", "unread", "other_script", "repetition", "words", "ece", "brier", "position_bias"]
    assert list(table.head) == ["recipe", *names]
    assert all(row[names.index("words") + 1] == "3.000" and NONE not in row for row in table.rows), "fake answer 1a2b"
    assert replies.coverage(board, "both") == [
        "empty, at_limit, unread, other_script, repetition and words: over text, 1 of 2 tasks.",
        "ece, brier and position_bias: over own, 1 of 2 tasks.",
    ]
    (places,) = replies.places(board, "both")
    assert places.rows[0] == ("right answers", "2", "2", "2", "2")
    assert all(sum(map(int, row[1:])) == 8 for row in places.rows)
    (section,) = [each for each in sections(board, set(), None) if each.title == "How recipes reply"]
    assert len(section.words) == 1 + len({*names, "length_ratio"})

    takes = "corpus BLEU, ROUGE-L, no stemming"
    assert tasks(board, "notes").head[1] == f"notes (composite with {takes})"
    assert {"letters: bleu", "letters: corpus_bleu"} <= set(tasks(board, "notes").head), "both are shown"
