"""The examples of a task of the user's own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from orchestrator.config.generation import OwnTask
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
        examples.append(Example(str(row.number), text, references[0], others=tuple(references[1:])))
    if not examples:
        raise file.wrong("is empty; write an object per line")
    return examples
