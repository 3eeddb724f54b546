"""The queue by itself, with workers that break as hypothesis likes: nothing is lost, nothing asked twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.queue import ATTEMPTS, Break, Queue
from cluster.timeouts import TIMES, UNKNOWN, Timeouts
from orchestrator.core.records import Answer, Answered, Block, Decoding, Question


def block(recipe: str, number: int, size: int = 4) -> Block:
    return Block(recipe, tuple(Question((10 * number + q,), (1,)) for q in range(size)))


def text(recipe: str, number: int, size: int = 4, tokens: int = 16) -> Block:
    return Block(recipe, tuple(Question((10 * number + q,), decoding=Decoding(tokens, ())) for q in range(size)))


def keys(asked: Block) -> list[tuple[str, str]]:
    return [(asked.recipe_id, question.id) for question in asked.questions]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_whatever_breaks_each_question_is_answered_once_or_its_recipe_is_lost(
    data: st.DataObject, recipes: int, each: int, nodes: int
) -> None:
    queue, names = Queue(), [f"n{i}" for i in range(nodes)]
    queue.await_texts(data.draw(st.sets(st.sampled_from(["r0", "r1"]))))
    kind = {b: data.draw(st.sampled_from([block, text])) for b in range(each)}
    work = [kind[b](f"r{r}", b) for r in range(recipes) for b in range(each)]
    queue.add(work)
    workers: dict[tuple[str, int], Block | None] = {(name, i): None for name in names for i in range(2)}
    loaded: dict[tuple[str, int], str | None] = dict.fromkeys(workers)
    answered: Counter[tuple[str, str]] = Counter()
    lost: dict[str, list[Break]] = {}
    while queue or any(workers.values()):
        for worker, at in workers.items():
            if at is None:
                workers[worker] = queue.take(worker[0], loaded[worker], names)
        worker = data.draw(st.sampled_from([w for w, at in workers.items() if at]))
        at, workers[worker] = workers[worker], None
        assert at is not None
        match data.draw(st.sampled_from(["done", "done", "give back", "halve", "break"])):
            case "give back":
                queue.give_back(at)
            case "halve" if len(at.questions) > 1:
                queue.halve(at)
            case "break":
                if breaks := queue.broke(at, Break(worker[0], str(worker), "died")):
                    assert at.recipe_id not in lost
                    lost[at.recipe_id] = breaks
            case _:
                queue.answered(at, 1.0)
                loaded[worker] = at.recipe_id
                answered.update(keys(at))
    assert max(answered.values(), default=1) == 1
    assert {key for each_block in work for key in keys(each_block) if key[0] not in lost} <= answered.keys()
    for breaks in lost.values():
        assert len(breaks) == ATTEMPTS
        assert len({broken.node for broken in breaks}) == min(nodes, ATTEMPTS), "another node gets its chance"


def test_a_worker_keeps_its_recipe_then_takes_a_new_one_then_helps() -> None:
    queue = Queue()
    queue.add([block("a", 0), block("b", 0), block("b", 1), block("b", 2), block("c", 0), block("c", 1)])
    first, second, third = (queue.take("n", None, ["n"]) for _ in range(3))
    assert [b.recipe_id for b in (first, second, third) if b] == ["a", "b", "c"]
    helping = queue.take("n", None, ["n"])
    assert helping and helping.recipe_id == "b", "the one with most left"
    assert third
    queue.done(third)
    going_on = queue.take("n", "c", ["n"])
    assert going_on and going_on.recipe_id == "c"


def test_texts_come_before_the_rest_and_the_longest_first() -> None:
    queue = Queue()
    for recipe in ("a", "b"):
        queue.add([block(recipe, 0), text(recipe, 1), text(recipe, 2, tokens=64), text(recipe, 3)])
    order = [queue.take("n", "a", ["n"]) for _ in range(4)]
    assert order == [text("a", 2, tokens=64), text("a", 1), text("a", 3), block("a", 0)], "by what they may write"
    for number, each in enumerate(order):
        assert each
        queue.answered(each, float(number))
    again = [queue.take("n", "b", ["n"]) for _ in range(4)]
    assert again == [text("b", 3), text("b", 1), text("b", 2, tokens=64), block("b", 0)], "by what they took"


def test_near_the_end_texts_of_any_recipe_come_before_the_rest_of_a_workers_own() -> None:
    queue = Queue()
    for recipe in ("a", "b", "c"):
        queue.add([block(recipe, 0), text(recipe, 1)])
    alone = [queue.take("n", "a", ["n"]), queue.take("n", "a", ["n"])]
    assert alone == [text("a", 1), block("a", 0)], "one worker waits for nobody"
    assert queue.take("n", None, ["n"]) == text("b", 1)
    assert queue.take("n", "b", ["n"]) == text("c", 1), "before the rest of b"
    assert queue.take("n", "b", ["n"]) == block("b", 0)


def test_texts_wait_for_the_parents_texts_to_the_same_prompts() -> None:
    queue = Queue()
    queue.await_texts(["p", "q"])
    queue.add([text("p", 1), text("q", 1), text("m", 1), text("m", 2), block("m", 3), text("n", 1)])
    first, second = (queue.take("n", None, ["n"]) for _ in range(2))
    assert first == text("p", 1) and second == text("q", 1)
    assert queue.take("n", None, ["n"]) == text("m", 2), "which no parent is asked"
    assert queue.take("n", "m", ["n"]) == block("m", 3)
    assert queue.take("n", "m", ["n"]) is None and queue, "the rest waits"
    queue.answered(first, 1.0)
    assert queue.take("n", "m", ["n"]) is None
    queue.lose("q")
    queue.done(second)
    assert queue.take("n", "m", ["n"]) == text("m", 1), "a parent that failed is not waited for"
    assert queue.take("n", None, ["n"]) == text("n", 1)


def test_a_block_that_broke_a_worker_waits_for_another_node() -> None:
    queue = Queue()
    queue.add([block("a", 0)])
    taken = queue.take("n1", None, ["n1", "n2"])
    assert taken
    assert queue.broke(taken, Break("n1", "w", "died")) == []
    assert queue.take("n1", "a", ["n1", "n2"]) is None
    assert queue.take("n2", None, ["n1", "n2"]) == taken
    assert queue.broke(taken, Break("n2", "w", "died")) == []
    assert queue.take("n1", None, ["n1", "n2"]) == taken, "all nodes have tried"


def test_limits_grow_with_what_was_measured_and_texts_have_another_than_choices() -> None:
    timeouts, choices = Timeouts(1.0), block("a", 0, 10)
    assert timeouts.start.limit() == timeouts.block_limit(choices) == UNKNOWN
    timeouts.start.observe(3.0)
    timeouts.start.observe(2.0)
    assert timeouts.start.limit() == TIMES * 3.0, "of the slowest"
    answers = tuple(Answer(q.id) for q in choices.questions)
    timeouts.observe_block(Answered(choices, answers, 0.5, 2.0, "w"))
    assert timeouts.block_limit(choices) == TIMES * 2.5
    assert timeouts.block_limit(block("a", 0, 1)) == TIMES * (0.5 + 0.2)
    texts = Block("a", (Question((1,), decoding=Decoding(8, ())),))
    assert timeouts.block_limit(texts) == UNKNOWN
    timeouts.observe_block(Answered(texts, answers[:1], 0.0, 0.01, "w"))
    assert timeouts.block_limit(texts) == TIMES * (0.5 + 0.01)
