"""Instructions with checkable answers: the other half of the demo.

A prompt names a topic and two or three of IFEval's instructions; whether a reply follows them is
decided by lm-eval's own IFEval checkers. Case changes are left out, since their checkers guess the
language of the reply, and not always the same way. The test prompts pair topics and instructions in ways
that training never shows: the score is for following instructions, not for remembering replies.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random
from typing import Any, NamedTuple, TypedDict

from tasks.demo.formulary import SEED, pick, shuffled

PROMPT_COUNT = 96

TOPICS = (
    "river",
    "library",
    "garden",
    "harbor",
    "market",
    "bridge",
    "forest",
    "kitchen",
    "village",
    "castle",
    "desert",
    "island",
    "meadow",
    "museum",
    "station",
    "tower",
)
ADJECTIVES = (
    "quiet",
    "old",
    "bright",
    "busy",
    "cold",
    "deep",
    "empty",
    "famous",
    "green",
    "huge",
    "lovely",
    "narrow",
    "proud",
    "simple",
    "warm",
    "wild",
)
KEYWORDS = (
    "lantern",
    "copper",
    "violin",
    "ladder",
    "pepper",
    "window",
    "basket",
    "marble",
    "feather",
    "candle",
    "saddle",
    "mirror",
    "button",
    "hammer",
    "ribbon",
    "kettle",
)
END_PHRASES = (
    "That is all.",
    "Any other questions?",
    "Thanks for reading.",
    "More to come.",
    "Ask me again.",
    "Have a good day.",
)

Arguments = dict[str, Any]
"""Arguments of one instruction, as its IFEval checker takes them; each instruction has its own."""


class Instruction(NamedTuple):
    """One of IFEval's instructions: its id, its words, and its arguments."""

    id: str
    text: str
    arguments: Arguments


class InstructionDocument(TypedDict):
    """One prompt, in the columns of google/IFEval."""

    key: int
    prompt: str
    instruction_id_list: list[str]
    kwargs: list[Arguments]


def _bullets(rng: Random) -> Instruction:
    count = pick(rng, (2, 3, 4))
    text = f"Use exactly {count} bullet points."
    return Instruction("detectable_format:number_bullet_lists", text, {"num_bullets": count})


def _end(rng: Random) -> Instruction:
    phrase = pick(rng, END_PHRASES)
    text = f"Finish with this exact phrase: {phrase}"
    return Instruction("startend:end_checker", text, {"end_phrase": phrase})


def _keywords(rng: Random) -> Instruction:
    words = shuffled(rng, KEYWORDS)[:2]
    text = f"Include the keywords {words[0]} and {words[1]}."
    return Instruction("keywords:existence", text, {"keywords": words})


def _no_comma(_: Random) -> Instruction:
    return Instruction("punctuation:no_comma", "Do not use any commas.", {})


def _postscript(_: Random) -> Instruction:
    text = "Add a postscript starting with P.S."
    return Instruction("detectable_content:postscript", text, {"postscript_marker": "P.S."})


def _quotation(_: Random) -> Instruction:
    return Instruction("startend:quotation", "Wrap your reply in double quotation marks.", {})


def _title(_: Random) -> Instruction:
    text = "Give a title in double angular brackets."
    return Instruction("detectable_format:title", text, {})


MAKERS: tuple[Callable[[Random], Instruction], ...] = (
    _bullets,
    _end,
    _keywords,
    _no_comma,
    _postscript,
    _quotation,
    _title,
)


class Exercise(NamedTuple):
    """A topic and the instructions for writing about it."""

    topic: str
    instructions: tuple[Instruction, ...]

    @property
    def pairing(self) -> tuple[str, frozenset[str]]:
        """What is kept apart between training and test: a topic with a set of instructions."""
        return self.topic, frozenset(each.id for each in self.instructions)

    @property
    def prompt(self) -> str:
        """The instructions as the model reads them."""
        instructions = " ".join(each.text for each in self.instructions)
        return f"Write about the {self.topic}. {instructions}"

    @property
    def reply(self) -> str:
        """The model answer: each instruction adds or changes one part, in a fixed order."""
        arguments = {each.id: each.arguments for each in self.instructions}
        start = TOPICS.index(self.topic)
        words = [ADJECTIVES[(start + step * 5) % len(ADJECTIVES)] for step in range(4)]
        parts = [f"The {self.topic} is {words[0]}, {words[1]} and {words[2]}."]
        if "punctuation:no_comma" in arguments:
            parts = [f"The {self.topic} is {words[0]} and {words[1]}."]
        if bullets := arguments.get("detectable_format:number_bullet_lists"):
            parts += [f"* It is {word}." for word in words[: bullets["num_bullets"]]]
        if keywords := arguments.get("keywords:existence"):
            parts.append(f"Think of {' and '.join(keywords['keywords'])}.")
        if "detectable_format:title" in arguments:
            parts.insert(0, f"<<The {self.topic}>>")
        if "detectable_content:postscript" in arguments:
            parts.append(f"P.S. It is {words[3]}.")
        if end := arguments.get("startend:end_checker"):
            parts.append(end["end_phrase"])
        text = "\n".join(parts)
        return f'"{text}"' if "startend:quotation" in arguments else text


def exercises(rng: Random) -> Iterator[Exercise]:
    """Yield exercises of two or three instructions, without end."""
    while True:
        makers = shuffled(rng, MAKERS)[: pick(rng, (2, 3))]
        yield Exercise(pick(rng, TOPICS), tuple(make(rng) for make in makers))


def held_out_exercises() -> list[Exercise]:
    """Return the exercises that the models are scored on."""
    return list(islice(exercises(Random(SEED + 2)), PROMPT_COUNT))


def training_texts(count: int) -> list[tuple[str, str]]:
    """Make (prompt, reply) pairs, none of whose pairings is a test exercise's."""
    kept = {exercise.pairing for exercise in held_out_exercises()}
    fresh = (each for each in exercises(Random(SEED + 3)) if each.pairing not in kept)
    return [(each.prompt, each.reply) for each in islice(fresh, count)]


def documents() -> list[InstructionDocument]:
    """Write the test exercises as lm-eval's IFEval functions read them."""
    return [
        {
            "key": key,
            "prompt": each.prompt,
            "instruction_id_list": [instruction.id for instruction in each.instructions],
            "kwargs": [instruction.arguments for instruction in each.instructions],
        }
        for key, each in enumerate(held_out_exercises())
    ]
