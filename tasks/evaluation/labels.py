"""Whether a task's documents can be scored: their choices, labels and targets, before anything is asked.

lm-eval takes them as they come. A label that names no choice is scored as an answer that nobody gets right, -1 is the
last choice in a few-shot example, a list among texts becomes its letters. Here such a document is refused. What may be
meant, but usually is not (no label is ever 0), is named. Only lm-eval's own reading of labels is checked; a task with a
`process_results` of its own reads them itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import Any

from jinja2 import Environment, TemplateSyntaxError
from jinja2.meta import find_undeclared_variables
from lm_eval.api.task import ConfigurableTask

from orchestrator.core.errors import UserError, describe, hint
from orchestrator.core.text import count
from tasks.benchmarks.questions import plain
from tasks.evaluation.refusals import COMPUTED

LOOKED_AT = 200
"""Documents whose labels are looked at, where fewer are evaluated: a few may not show how labels count."""
CHANCE = 1e-3
"""A pattern of labels that is less probable than this, were they drawn evenly, is named."""
LETTERS = "ABCDEFGHIJ"
NONE: frozenset[str] = frozenset()


def check_documents(task: Any, evaluated: Sequence[int]) -> list[str]:
    """Refuse documents that cannot be scored, few-shot examples included, and name labels and targets that look wrong.

    Args:
        evaluated: the numbers of the documents that are evaluated.

    Returns:
        Clauses about labels and targets that look wrong.

    Raises:
        UserError: a document has no choices, an empty choice, or a label or target that cannot be scored.
    """
    if not isinstance(task, ConfigurableTask):
        return []
    documents = task.eval_docs
    numbers = dict.fromkeys([*evaluated, *range(min(LOOKED_AT, len(documents)))])
    labels = _read(task, {number: documents[number] for number in numbers}, "document", read_label)
    if task.config.num_fewshot and task.fewshot_cfg.doc_to_choice and not task.multiple_input:
        shots = dict(enumerate(list(task.fewshot_docs() or [])[:LOOKED_AT]))
        _read(task, shots, "few-shot example", _label_of_example)
    return [*_suspicious(task, labels), *_empty_targets(task, [documents[number] for number in evaluated])]


@dataclass
class Label:
    """A document's label."""

    raw: Any
    """As lm-eval reads it."""
    index: int
    """The choice that it names; of several, the first."""
    choices: int
    """Number of choices."""


class Fault(Exception):
    """What is wrong with one document; the message continues `document 3 has …`."""

    def __init__(self, message: str, raw: Any = None, choices: int = 0) -> None:
        super().__init__(message)
        self.raw, self.choices = raw, choices


def _read(
    task: Any,
    documents: Mapping[int, Mapping[str, Any]],
    noun: str,
    read: Callable[[Any, Mapping[str, Any]], Label | None],
) -> list[Label]:
    """Read every document's label as lm-eval does; those that have one.

    Raises:
        UserError: `read` finds a fault.
    """
    labels: list[Label | None] = []
    faults: dict[int, Fault] = {}
    for number, document in documents.items():
        try:
            labels.append(read(task, document))
        except Fault as fault:
            faults[number] = fault
        except Exception as error:  # the task's own programs and templates raise whatever they meet
            faults[number] = Fault(f"a label or choices that cannot be read: {describe(error)}")
    found = [label for label in labels if label is not None]
    if faults:
        first = min(faults)
        raw = [*(label.raw for label in found), *(fault.raw for fault in faults.values())]
        much = f" ({len(faults)} of {count(len(documents), noun)} are like this)" if len(faults) > 1 else ""
        raise UserError(
            f"{noun} {first} has {faults[first]}{much}; "
            + _way_out(task, raw, max(fault.choices for fault in faults.values()))
        )
    return found


# -------------------------------------------------------------------- one document
def read_label(task: Any, document: Mapping[str, Any]) -> Label | None:
    """Read what the answer to a document is compared with; None where that is no choice, or the task reads it itself.

    Raises:
        Fault: the document cannot be scored.
    """
    is_choice = task.OUTPUT_TYPE == "multiple_choice"
    choices = _choices(task.doc_to_choice(document)) if is_choice else []
    if callable(task.config.process_results):
        return None  # it reads labels in its own way
    if not is_choice and (task.config.doc_to_choice is None or task.OUTPUT_TYPE != "generate_until"):
        _check_target(task, document)
        return None
    choices = choices or _choices(task.doc_to_choice(document))
    raw = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    return Label(raw, _index(task, raw, choices), len(choices))


def _label_of_example(task: Any, document: Mapping[str, Any]) -> None:
    """Check a few-shot example's label where it is a number: -1 would be the last choice."""
    settings = task.fewshot_cfg
    raw = task.doc_to_target(document, settings.doc_to_target)
    if isinstance(raw, int):
        choices = task.doc_to_choice(document, settings.doc_to_choice)
        if not 0 <= raw < len(choices):
            raise Fault(_outside(raw, choices), raw, len(choices))


def _outside(label: Any, choices: Sequence[str]) -> str:
    span = f" (0 to {len(choices) - 1})" if isinstance(label, int) else ""
    return f"the label {_shown(label)}, which names none of its {count(len(choices), 'choice')}{span}"


def _choices(choices: Any) -> list[str]:
    if not isinstance(choices, list | tuple):
        raise Fault(f"choices that are no list, but {type(choices).__name__}")
    if not choices:
        raise Fault("no choices")
    for place, choice in enumerate(choices):
        if not isinstance(choice, str):
            raise Fault(f"a choice {place} that is no text, but {type(choice).__name__}")
        if not choice:
            raise Fault(f"an empty choice {place}")
    return list(choices)


def _index(task: Any, raw: Any, choices: list[str]) -> int:
    """Read a label as the index of a choice; of several, the first.

    Raises:
        Fault: it names no choice.
    """
    size = len(choices)
    if task.multiple_target and task.OUTPUT_TYPE == "multiple_choice":
        if not isinstance(raw, list):
            raise Fault(
                f"the label {_shown(raw)}, but the first document has a list, which lm-eval then expects of all"
            )
        if not raw:
            raise Fault("an empty list of labels")
        for each in raw:
            if not isinstance(each, int) or not 0 <= each < size:
                raise Fault(_outside(each, choices), each, size)
        return int(raw[0])
    if isinstance(raw, Integral):  # numpy's, too
        index = int(raw)
        if not 0 <= index < size:
            raise Fault(_outside(index, choices), index, size)
        return index
    if isinstance(raw, str) and task.OUTPUT_TYPE == "multiple_choice":
        if raw not in choices:
            raise Fault(_outside(raw, choices), raw, size)
        return choices.index(raw)
    kind = "no label (null)" if raw is None else f"the label {_shown(raw)}"
    raise Fault(f"{kind}, which is neither the number nor the text of a choice", raw, size)


def _check_target(task: Any, document: Mapping[str, Any]) -> None:
    """Check the text that an answer is compared with, or whose log-probability is computed.

    Raises:
        Fault: it is none.
    """
    target = task.doc_to_target(document)
    if task.OUTPUT_TYPE != "generate_until":
        if not isinstance(target, str) or not target:
            raise Fault(f"the target {_shown(target)}, but a log-probability is that of a text")
    elif task.multiple_target:
        if not isinstance(target, list):
            raise Fault("one target, but the first document has a list of them, and lm-eval expects one")
        if not target or any(_is_nothing(each) for each in target):
            raise Fault("an empty list of targets" if not target else "a target in its list that is null")
        return
    elif isinstance(target, list):
        raise Fault("a list of targets, but the first document has one, and lm-eval would compare with the list's text")
    elif isinstance(target, Mapping) and set(task.aggregation()) & COMPUTED["generate_until"]:
        raise Fault("a target with keys, and lm-eval would compare with its text; name the text in doc_to_target")
    if _is_nothing(target) or _is_null_as_text(task, target, document):
        raise Fault("no target (null)")


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_null_as_text(task: Any, target: Any, document: Mapping[str, Any]) -> bool:
    """Whether a template has written a null value as `None` or `nan`."""
    if target not in ("None", "nan"):
        return False
    names = variables(task.config.doc_to_target)
    return any(_is_nothing(document.get(name)) for name in names)


@lru_cache(maxsize=64)
def variables(template: Any) -> frozenset[str]:
    """Return the names that a Jinja template uses; none where it is no template."""
    try:
        return (
            frozenset(find_undeclared_variables(Environment().parse(template))) if isinstance(template, str) else NONE
        )
    except TemplateSyntaxError:
        return NONE


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


# -------------------------------------------------------------------- all documents
def _way_out(task: Any, raw: Sequence[Any], choices: int) -> str:
    """How to write labels of this kind, as far as it can be seen.

    Args:
        raw: all labels.
        choices: the most choices of a document whose label names none.
    """
    column = task.config.doc_to_target
    column = column if column in task.features else min(variables(column), default="answer")
    if choices and all(isinstance(label, int) for label in raw) and min(raw) == 1 and max(raw) == choices:
        return f'the labels count from 1: write doc_to_target: "{{{{{column} - 1}}}}" in the task file'
    if raw and all(isinstance(label, str) and label.isdigit() for label in raw):
        return f'the labels are numbers as text: write doc_to_target: "{{{{{column}}}}}" in the task file'
    if raw and all(isinstance(label, str) and label.strip() and label.strip() in LETTERS for label in raw):
        return (
            "the labels are letters: write doc_to_choice: [A, B, C, D], or "
            f"doc_to_target: \"{{{{'{LETTERS}'.index({column})}}}}\" in the task file"
        )
    if raw and all(isinstance(label, float) and label.is_integer() for label in raw):
        return f'the labels are decimals: write doc_to_target: "{{{{{column} | int}}}}" in the task file'
    return "correct the data, or leave such documents out with process_docs in the task file"


def _suspicious(task: Any, labels: Sequence[Label]) -> list[str]:
    """Name labels that are possible, but improbable if a label's place says nothing about the answer."""
    evenly = min((label.choices for label in labels), default=0)
    if evenly < 2 or isinstance(task.config.doc_to_target, int):
        return []  # the task file itself says where the answer is
    seen = {label.index for label in labels}
    if len(seen) == 1 and evenly ** (1 - len(labels)) < CHANCE:
        return [f"all of {len(labels)} documents have the label {seen.pop()}"]
    if 0 not in seen and (1 - 1 / evenly) ** len(labels) < CHANCE:
        return [
            f"no label of {len(labels)} documents is 0, the first choice; if labels count from 1 in "
            "the data, every answer is compared with the wrong choice",
        ]
    return []


def _empty_targets(task: Any, documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Name targets of generated text that are empty: only an empty reply is like them."""
    if task.OUTPUT_TYPE != "generate_until" or callable(task.config.process_results) or task.config.doc_to_choice:
        return
    targets = [task.doc_to_target(document) for document in documents]
    texts = [each if isinstance(each, list) else [each] for each in targets]
    if empty := sum(any(isinstance(text, str) and not text.strip() for text in each) for each in texts):
        yield f"{empty} of {len(texts)} documents have an empty target, which only an empty reply is like"


def odd_prompts(task: Any) -> Iterator[str]:
    """Name what is odd about the prompts: a choice twice, a question among its examples, null as text."""
    yield from _words_for_columns(task)
    prompts: dict[int, list[Any]] = {}
    for instance in task.instances:
        prompts.setdefault(instance.doc_id, []).append(instance)
    if twice := sum(_has_a_choice_twice(task, requests) for requests in prompts.values()):
        yield f"{twice} of {len(prompts)} documents have the same choice twice"
    firsts = [requests[0] for requests in prompts.values()]
    if task.config.num_fewshot and (leaked := sum(_is_its_own_example(task, request) for request in firsts)):
        yield f"{leaked} of {len(firsts)} questions are among their own few-shot examples"
    if nulls := sum(_says_none(task, request) for request in firsts):
        yield f"{nulls} of {len(firsts)} documents lack a value (null), and their prompts say None"


def _words_for_columns(task: Any) -> Iterator[str]:
    """Name words of the task file that lm-eval takes as they stand, but that look like a misspelt column."""
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        word = getattr(task.config, key, None)
        near = hint(word, task.features).removeprefix("; ") if isinstance(word, str) and word.isidentifier() else ""
        if near and word not in task.features:
            yield f"the data has no column {word!r} ({near}), so {key} is this word in every document"


def _has_a_choice_twice(task: Any, requests: Sequence[Any]) -> bool:
    """Whether two choices are the same text: the later one is never chosen, right or not."""
    return task.OUTPUT_TYPE == "multiple_choice" and len({request.args for request in requests}) < len(requests)


def _is_its_own_example(task: Any, request: Any) -> bool:
    question = task.doc_to_text(request.doc)
    return isinstance(question, str) and len(own := plain(question)) > 1 and plain(request.args[0]).count(own) > 1


def _says_none(task: Any, request: Any) -> bool:
    """Whether a value of the document is null, and the prompt has it as text."""
    missing = [name for name in variables(task.config.doc_to_text) if _is_nothing(request.doc.get(name))]
    return bool(missing) and any(word in request.args[0] for word in ("None", "nan"))
