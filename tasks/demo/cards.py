"""A labelled task over the demo's formulary: write a drug's card.

`python -m tasks.demo.cards` writes its files. A card needs the clinical half (the facts) and the instruct
half (following an instruction, in its order), and is neither's own form: fine-tuning has to teach it, and a start that
has learned the facts needs fewer examples. Beside the cards are some of the instructions that the instruct parent
learned, for ICFT to keep.
"""

import itertools
import json
from pathlib import Path
from random import Random
from typing import NamedTuple

from tasks.demo import instructions
from tasks.demo.formulary import ATTRIBUTES, SEED, facts, shuffled

FOLDER = Path(__file__).parent / "cards"
TRAIN, TEST, GENERAL = 640, 96, 64


class Card(NamedTuple):
    """A prompt for a drug's card, and the card."""

    request: str
    card: str


def cards() -> list[Card]:
    """Make a card of every drug with every ordered pair and triple of its attributes, in a fixed random order."""
    values = {(fact.drug, fact.attribute.name): fact.value for fact in facts()}
    drugs = list(dict.fromkeys(fact.drug for fact in facts()))
    names = [attribute.name for attribute in ATTRIBUTES]
    wanted = [order for count in (2, 3) for order in itertools.permutations(names, count)]
    made = [
        Card(
            f"{drug}: {', '.join(order)}",
            "\n".join([f"<<{drug}>>", *(f"* {name}: {values[drug, name]}" for name in order)]),
        )
        for drug in drugs
        for order in wanted
    ]
    return shuffled(Random(SEED + 4), made)


def lines(chosen: list[Card]) -> str:
    """Write cards as JSON Lines, as `generation.own` reads them."""
    return "".join(json.dumps(card._asdict()) + "\n" for card in chosen)


def conversations(pairs: list[tuple[str, str]]) -> str:
    """Write prompts and replies as JSON Lines, as `finetune.icft.general` reads them."""
    conversations = ([{"from": "human", "value": prompt}, {"from": "gpt", "value": reply}] for prompt, reply in pairs)
    return "".join(json.dumps({"conversations": turns}) + "\n" for turns in conversations)


def files() -> dict[str, str]:
    """Make name → content of the files in `FOLDER`."""
    made = cards()
    return {
        "test.jsonl": lines(made[:TEST]),
        "train.jsonl": lines(made[TEST : TEST + TRAIN]),
        "general.jsonl": conversations(instructions.training_texts(GENERAL)),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
