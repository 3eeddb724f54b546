"""Make the files of examples/medquad.yaml from MedQuAD: the three tasks of the ICFT paper, and weak labels.

    python -m examples.medquad.prepare FOLDER

FOLDER is the authors' (XML files), or one with sft_train.jsonl and sft_validation.jsonl. What is written to
examples/medquad/data, an object per line with `request`, `reply` and `weight`:

    answering-….jsonl    a question with four answers, to name the right one by its letter
    preference-….jsonl   a question with two answers, to name the better one
    response-….jsonl     a question, to answer
    weak-….jsonl         train: preferences, of which some are labelled by people (weight 1) and more by a rule (its
                         confidence); test: as preference's

With --model MODEL, weak-response-train.jsonl too: questions that the model answered itself, weighted by its confidence.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from examples.medquad.pairs import (
    QuestionAnswer,
    label_by_overlap,
    preferences,
    question_answering,
    read_medquad,
    responses,
    shorten,
)
from examples.medquad.weak_labels import label_by_model
from tasks.finetuning.rows import WeightedExample, load, open_tokenizer

TO = Path(__file__).parent / "data"


def tasks(pairs: list[QuestionAnswer], pool: list[QuestionAnswer]) -> dict[str, list[WeightedExample]]:
    """Make the examples of the three tasks.

    Args:
        pool: what wrong answers are drawn from.
    """
    return {
        "answering": [choice.lettered for choice in question_answering(pairs, pool, seed=0)],
        "preference": [pair.choice.example for pair in preferences(pairs, pool, seed=0)],
        "response": responses(pairs),
    }


def write(path: Path, examples: Iterable[WeightedExample]) -> None:
    """Write examples as JSON Lines."""
    rows = ({"request": each.prompt, "reply": each.completion, "weight": each.weight} for each in examples)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prepare(folder: Path, to: Path, *, words: int, train: int, test: int, labelled: int, model: Path | None) -> None:
    """Write all files.

    Args:
        words: most words of an answer; longer ones are cut to whole sentences.
        train: most pairs to learn from.
        test: most pairs to evaluate on.
        labelled: number of the weak task's training examples that have their true label.
        model: one whose own answers are weak labels, too.
    """
    data = read_medquad(folder)
    to.mkdir(parents=True, exist_ok=True)
    pool = shorten(data.train[:train], words)
    held_out = shorten(data.test[:test], words)
    for name, examples in tasks(pool, pool).items():
        write(to / f"{name}-train.jsonl", examples)
    for name, examples in tasks(held_out, held_out).items():
        write(to / f"{name}-test.jsonl", examples)
    pairs = preferences(pool, pool, seed=0)
    weak = [*(pair.choice.example for pair in pairs[:labelled]), *map(label_by_overlap, pairs[labelled:])]
    write(to / "weak-train.jsonl", weak)
    if model:
        opened = load(model)
        tokenizer = open_tokenizer(model, opened.get_input_embeddings().num_embeddings)
        asked = [pair.question for pair in pool[labelled:]]
        own = label_by_model(opened, tokenizer, asked, max_new_tokens=4 * words)
        write(to / "weak-response-train.jsonl", [*responses(pool[:labelled]), *own])


def main() -> None:
    """Read the command line and prepare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--to", type=Path, default=TO)
    parser.add_argument("--words", type=int, default=60, help="most words of an answer")
    parser.add_argument("--train", type=int, default=2000, help="most pairs to learn from")
    parser.add_argument("--test", type=int, default=200, help="most pairs to evaluate on")
    parser.add_argument("--labelled", type=int, default=64, help="weak training examples with their true label")
    parser.add_argument("--model", type=Path, help="a model folder: its own answers are weak labels, too")
    given = parser.parse_args()
    prepare(
        given.folder, given.to, words=given.words, train=given.train, test=given.test, labelled=given.labelled,
        model=given.model,
    )  # fmt: skip


if __name__ == "__main__":
    main()
