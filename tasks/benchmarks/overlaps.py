"""The same question more than once: in several tasks, within a test set, and in what is trained on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.text import count, listed
from tasks.benchmarks.questions import Asked, digest, plain, words

ANCHOR = 8
"""Words by which a question is looked for in a longer text; a shorter one is looked for only if it has options."""


# -------------------------------------------------------------------- among the documents of a sweep
def clusters(asked: Iterable[Asked]) -> dict[Asked, int]:
    """Number the questions so that documents that ask the same one have the same number, and no others do.

    Returns:
        Question → a number of 63 bits, which is the same in every command over the same documents.
    """
    by_text: dict[str, list[Asked]] = defaultdict(list)
    for each in dict.fromkeys(asked):
        by_text[each.text].append(each)
    return {each: _number(group) for alike in by_text.values() for group in _groups(alike) for each in group}


def _groups(alike: Sequence[Asked]) -> list[list[Asked]]:
    """Group questions with one text: the connected parts of `Asked.is_same`."""
    if any(each.needed(len(each.options)) == 0 for each in alike):
        return [list(alike)]  # it is the same question as each of the others
    group_of: dict[Asked, list[Asked]] = {}
    having: dict[str, list[Asked]] = defaultdict(list)
    for each in alike:
        group = group_of[each] = [each]
        for other in dict.fromkeys(other for option in each.options for other in having[option]):
            if group_of[other] is not group and each.is_same(other):
                joined = group_of[other]
                group += joined
                group_of.update(dict.fromkeys(joined, group))
        for option in each.options:
            having[option].append(each)
    return list({id(group): group for group in group_of.values()}.values())


def _number(group: Sequence[Asked]) -> int:
    options = min(sorted(each.options) for each in group)
    return int.from_bytes(digest("\n".join([group[0].text, *options]))[:8], "big") >> 1


@dataclass(frozen=True)
class Overlap:
    """The documents of a task whose questions are there more than once."""

    task: str
    documents: int
    repeats: int
    """Documents whose question an earlier document of the task asks."""
    shared: dict[str, int]
    """Other task → documents of this one whose question it asks too."""
    in_others: int
    """Documents whose question some other task asks too."""


def find_overlaps(tasks: Mapping[str, Sequence[int]]) -> list[Overlap]:
    """Find the questions that are there more than once, task by task; tasks without any are left out.

    Args:
        tasks: name → the clusters of its documents.
    """
    sets = {name: set(numbers) for name, numbers in tasks.items()}
    found = []
    for name, numbers in tasks.items():
        others = {other: sum(n in known for n in numbers) for other, known in sets.items() if other != name}
        shared = {other: number for other, number in others.items() if number}
        everywhere = set().union(*(known for other, known in sets.items() if other in shared))
        repeats = len(numbers) - len(sets[name])
        if shared or repeats:
            found.append(Overlap(name, len(numbers), repeats, shared, sum(n in everywhere for n in numbers)))
    return found


def describe_overlaps(overlaps: Sequence[Overlap]) -> list[str]:
    """Describe the questions that tasks share in sentences, one a task."""
    found = []
    for each in overlaps:
        if each.shared:
            others = listed(f"{number} of {name}" for name, number in Counter(each.shared).most_common())
            found.append(
                f"{each.task}: {each.in_others} of {count(each.documents, 'document')} ask a question that another "
                f"task asks too ({others}); standard errors take the same question for one draw."
            )
    return found


# -------------------------------------------------------------------- in what is trained on
class KnownQuestions:
    """The questions that a sweep is evaluated on, to be found in the texts that it trains on.

    Args:
        tasks: name of a task → its questions.
    """

    def __init__(self, tasks: Mapping[str, Iterable[Asked]]) -> None:
        self._tasks: dict[Asked, dict[str, None]] = defaultdict(dict)
        for name, asked in tasks.items():
            for each in asked:
                self._tasks[each][name] = None
        self._whole: dict[str, list[Asked]] = defaultdict(list)
        self._parts: dict[tuple[str, ...], list[Asked]] = defaultdict(list)
        for each in self._tasks:
            self._whole[each.text].append(each)
            if len(each.words) >= (2 if each.options else ANCHOR):
                self._parts[each.words[:ANCHOR]].append(each)
        lengths: dict[str, set[int]] = defaultdict(set)
        for anchor in self._parts:
            lengths[anchor[0]].add(len(anchor))
        self._lengths = {first: sorted(found) for first, found in lengths.items()}

    def tasks_in(self, prompts: Sequence[str], answer: str, own: str = "") -> list[str]:
        """List the tasks of whose questions one is in an example to train on.

        A question is in it if a prompt is the question, or has it in its words, and enough of the question's options
        are in the example (`Asked.needed`).

        Args:
            prompts: the texts before the answer.
            answer: the text that is learned.
            own: the task whose training split the example is from: of its questions only whole prompts count, as its
                inputs are written alike.
        """
        texts = [words(prompt) for prompt in prompts]
        whole = [each for text in texts for each in self._whole.get("".join(text), ())]
        parts: list[Asked] = []
        for text in texts:
            for place, word in enumerate(text):
                for length in self._lengths.get(word, ()):
                    near = self._parts.get(text[place : place + length], ())
                    parts += [each for each in near if text[place : place + len(each.words)] == each.words]
        if parts:
            everything = plain(" ".join([*prompts, answer]))
            parts = [each for each in parts if _has_options(each, everything)]
        found = [task for each in whole for task in self._tasks[each]]
        return list(dict.fromkeys([*found, *(task for each in parts for task in self._tasks[each] if task != own)]))


def _has_options(asked: Asked, text: str) -> bool:
    """Whether enough of a question's options are in a plain text."""
    return sum(option in text for option in asked.options) >= asked.needed(len(asked.options))


class Screen:
    """Finds the examples to train on that contain a question of the sweep's tests, and leaves them out on request.

    Args:
        tasks: name of a task → the questions that the sweep is evaluated on.
        leave_out: whether such examples are left out.
    """

    def __init__(self, tasks: Mapping[str, Iterable[Asked]], leave_out: bool) -> None:
        self._known, self._leave_out = KnownQuestions(tasks), leave_out
        self._seen: Counter[str] = Counter()
        self._hits: dict[str, list[list[str]]] = defaultdict(list)

    def keeps(self, where: str, prompts: Sequence[str], answer: str, own: str = "") -> bool:
        """Whether an example is trained on; it is counted.

        Args:
            where: the sweep file's key of the examples.
            prompts: the texts before the answer.
            answer: the text that is learned.
            own: the task whose training split it is from.
        """
        self._seen[where] += 1
        tasks = self._known.tasks_in(prompts, answer, own)
        if tasks:
            self._hits[where].append(tasks)
        return not (tasks and self._leave_out)

    def describe(self) -> list[str]:
        """Describe the examples that were found in sentences, one a key of the sweep file."""
        way = (
            "are left out, because they contain a question that the sweep is evaluated on"
            if self._leave_out
            else "contain a question that the sweep is evaluated on, so that scores there may be learned by heart"
        )
        found = []
        for where, hits in self._hits.items():
            tasks = Counter(task for each in hits for task in each).most_common()
            out = "" if self._leave_out else "; finetune.leave_out_test_questions: true leaves them out"
            found.append(
                f"{where}: {len(hits):,} of {self._seen[where]:,} examples {way} "
                f"({listed(f'{number} of {task}' for task, number in tasks)}){out}"
            )
        return found
