"""An invented formulary: the clinical half of the demo.

Every drug, class and antidote here is made up, so no model can know them from elsewhere: a
right answer can only come from what the clinical parent's weights have learned, which is what a
merge of it has to keep. The facts are a pure function of `SEED`. Only `Random.random` is used, the
one generator that Python promises to keep, because the shipped weights have learned exactly these
facts.
"""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, TypedDict, TypeVar

T = TypeVar("T")

SEED = 7
DRUG_COUNT = 48
CHOICE_COUNT = 4

ONSETS = [
    "Bra",
    "Cal",
    "Dro",
    "Fen",
    "Gli",
    "Jor",
    "Kel",
    "Lum",
    "Mos",
    "Nar",
    "Pri",
    "Quo",
    "Ras",
    "Sel",
    "Tor",
    "Vex",
]
MIDDLES = ["ba", "ci", "do", "fu", "lo", "mi", "ne", "pa", "ri", "sto", "ta", "ve"]
ENDINGS = ["dine", "fen", "lix", "mab", "nol", "pril", "rane", "stat", "tine", "zole"]


class Attribute(NamedTuple):
    """One kind of fact: its statement, its question, and the values it can take."""

    name: str
    statement: str
    question: str
    values: tuple[str, ...]


ATTRIBUTES = (
    Attribute(
        "class",
        "{drug} is a member of the {value}.",
        "Which class does {drug} belong to?",
        (
            "velar channel blockers",
            "tirokinase inhibitors",
            "somnergic agonists",
            "oxaline antagonists",
            "glutan modulators",
            "renic enhancers",
            "pexamine analogues",
            "lumaric esters",
            "thalgic antibodies",
            "corvine depletors",
        ),
    ),
    Attribute(
        "dose",
        "The usual dose of {drug} is {value}.",
        "What is the usual dose of {drug}?",
        (
            "5 mg once daily",
            "5 mg twice daily",
            "10 mg at night",
            "20 mg once daily",
            "25 mg twice daily",
            "40 mg once weekly",
            "50 mg at night",
            "75 mg twice daily",
            "100 mg once daily",
            "200 mg once weekly",
        ),
    ),
    Attribute(
        "antidote",
        "An overdose of {drug} is treated with {value}.",
        "What is the antidote to {drug}?",
        (
            "pelorane",
            "acetimol",
            "warnex salts",
            "brizone",
            "oxaflume",
            "silver tannate",
            "humedrol",
            "nicarose",
            "calvarin",
            "dextrovine",
        ),
    ),
    Attribute(
        "contraindication",
        "{drug} must never be given in {value}.",
        "In which condition is {drug} contraindicated?",
        (
            "liver failure",
            "glaucoma",
            "pregnancy",
            "severe asthma",
            "heart block",
            "peptic ulcer",
            "gout",
            "epilepsy",
            "renal stones",
            "myasthenia",
        ),
    ),
)


class Fact(NamedTuple):
    """What is true of one drug in one respect."""

    drug: str
    attribute: Attribute
    value: str

    @property
    def statement(self) -> str:
        """The fact as a sentence."""
        return self.attribute.statement.format(drug=self.drug, value=self.value)

    @property
    def question(self) -> str:
        """The prompt that the fact's value answers."""
        return f"Question: {self.attribute.question.format(drug=self.drug)}\nAnswer:"


class FormularyDocument(TypedDict):
    """One multiple-choice question, in the columns that the lm-eval task reads."""

    question: str
    choices: list[str]
    answer: int


def pick(rng: Random, pool: Sequence[T]) -> T:
    """Draw one element of `pool`, the same on every Python version."""
    return pool[int(rng.random() * len(pool))]


def shuffled(rng: Random, pool: Sequence[T]) -> list[T]:
    """Return `pool` in random order, the same on every Python version."""
    return sorted(pool, key=lambda _: rng.random())


def facts() -> list[Fact]:
    """List every fact of the formulary."""
    rng = Random(SEED)
    stems = [onset + middle for onset in ONSETS for middle in MIDDLES]
    drugs = [stem + pick(rng, ENDINGS) for stem in shuffled(rng, stems)[:DRUG_COUNT]]
    return [Fact(drug, each, pick(rng, each.values)) for drug in drugs for each in ATTRIBUTES]


def training_texts() -> list[tuple[str, str]]:
    """Make (prompt, completion) pairs that teach every fact, as a statement and as an answer."""
    known = facts()
    statements = [("", fact.statement) for fact in known]
    return statements + [(fact.question, f" {fact.value}") for fact in known]


def documents() -> list[FormularyDocument]:
    """Make one question per fact; the wrong choices are other values of the same kind."""
    rng = Random(SEED + 1)
    questions: list[FormularyDocument] = []
    for fact in facts():
        others = [value for value in fact.attribute.values if value != fact.value]
        choices = shuffled(rng, [fact.value, *shuffled(rng, others)[: CHOICE_COUNT - 1]])
        questions.append({"question": fact.question, "choices": choices, "answer": choices.index(fact.value)})
    return questions
