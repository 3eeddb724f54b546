"""The examples of a task of the user's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from orchestrator.config.generation import OwnTask
from orchestrator.core.row import Row
from orchestrator.core.rows import read_rows
from orchestrator.core.user_file import UserFile
from tasks.generation.sources import Example, Examples, make_examples


def own_examples(name: str, task: OwnTask) -> Examples:
    """Read the user's own rows.

    Raises:
        UserError: no such file, a broken row, a field that is missing, empty, or no text.
    """
    train = task.train
    reader = (lambda: _own_examples(f"generation.own.{name}.train", train, task)) if train else tuple
    test = _own_examples(f"generation.own.{name}.file", task.file, task)
    again = len(test) - len({(each.input, each.reference, each.others) for each in test})
    remark = f"{name}: {again} of the {len(test)} examples are there again, with the same input and reference."
    return dataclasses.replace(make_examples(test, reader), remarks=(remark,) if again else ())


def _own_examples(where: str, path: str, task: OwnTask) -> list[Example]:
    file = UserFile(Path(path), where)
    examples = []
    for row in read_rows(file):
        text = row.text(task.input).strip()
        references = [reference.strip() for reference in row.texts(task.reference)]
        for field, found in ((task.input, [text]), (task.reference, references)):
            if not found or not all(found):
                raise row.wrong(f"has no text in the field {field!r}; name the fields with input and reference")
        weight = _weight(row, task.weight) if task.weight else 1.0
        examples.append(Example(str(row.number), text, references[0], others=tuple(references[1:]), weight=weight))
    if not examples:
        raise file.wrong("is empty; write an object per line")
    return examples


def _weight(row: Row, field: str) -> float:
    """Read the weight of an example; 1 where the row has none.

    Raises:
        UserError: it is no number from 0 to 1.
    """
    value = row.values.get(field, 1.0)
    try:
        weight = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= 1:
        raise row.wrong(f"has no number from 0 to 1 in the field {field!r}, which weight names; correct it")
    return weight
