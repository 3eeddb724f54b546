"""The examples of a task of the user's own."""

from __future__ import annotations

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
    return make_examples(_own_examples(f"generation.own.{name}.file", task.file, task), reader)


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
