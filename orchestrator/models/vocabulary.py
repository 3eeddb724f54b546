"""Whether two models have one vocabulary: the same token in each row, and texts cut into tokens alike.

Only the names of added tokens may differ, because fine-tunes rename reserved ones. What that means for the models
whose tokenizer is not served is said (`differences`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.models.tokenizer import Tokenizer, read_tokenizer

PROBES = (
    "A 63-year-old man presents with chest pain; BP 150/95 mmHg, HR 104.",
    " two  spaces,   three and one at the end ",
    "I'm sure you're right, we'll see. DON'T", "0.5 µg/mL x 1234567890",
    "Zwölf naïve cafés, cafe\u0301s", "体温は38度です。",
    "line\n\nline\r\n\tcode(x) == [1, 2]; {}", "ﬁrst ½ ™ …",
    "😀👩‍⚕️", "<tag> a@b.org https://x.y/z?q=1 #1 $2 50%",
)  # fmt: skip
"""Texts in which normalizers and pre-tokenizers differ, if they do: spaces, digits, contractions, accents, scripts."""
WAYS = (
    "tokenizer_source: union in the sweep file gives every merge the tokens of all parents, as mergekit does; base, or "
    "a parent's name, those of that parent's tokenizer"
)
ONE_TOKENIZER = (
    "copy the tokenizer's files from the one that both were trained with, or write tokenizer_source with the parent "
    "whose tokenizer is to serve every recipe"
)


@dataclass(frozen=True)
class Vocabulary:
    """A model's rows and tokenizer."""

    where: str
    """The sweep file's key, for messages."""
    folder: Path
    """The model's."""
    rows: int | None
    """Rows of its embedding, as its config has them."""
    files: dict[str, bytes]
    """The tokenizer's files, by name; empty where there is none."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; raises as `read_tokenizer`."""
        return read_tokenizer(self.where, self.files)

    @property
    def tokens(self) -> dict[str, int]:
        """Token → row; tokens beyond the embedding, which have none, are left out."""
        tokens = self.tokenizer.tokens
        return tokens if self.rows is None else {token: row for token, row in tokens.items() if row < self.rows}

    @property
    def beyond(self) -> dict[str, int]:
        """Token → id of the tokens that have no row."""
        tokens = self.tokenizer.tokens
        return {} if self.rows is None else {token: row for token, row in tokens.items() if row >= self.rows}

    @property
    def cutting(self) -> dict[str, bytes]:
        """The files that decide how texts are cut; those without them are the same tokenizer with another template."""
        return {name: data for name, data in self.files.items() if name != "chat_template.jinja"}


def check_one_vocabulary(mine: Vocabulary, theirs: Vocabulary) -> None:
    """Refuse two models whose rows are not the same tokens, or whose tokenizers cut texts differently.

    Raises:
        UserError: they differ; the message says in what, and the ways out.
    """
    if mine.files and theirs.files and mine.cutting != theirs.cutting:
        problem = _moved(mine, theirs) or _rows(mine, theirs) or _merges(mine, theirs) or _cuts(mine, theirs)
    else:
        problem = _rows(mine, theirs)
    if problem:
        raise UserError(f"{mine.where}: {problem}")


def _moved(mine: Vocabulary, theirs: Vocabulary) -> str | None:
    """Describe a token that is in another row; added tokens of both may have different names in one row."""
    a, b = mine.tokens, theirs.tokens
    ours, others = mine.tokenizer.added, theirs.tokenizer.added
    renamed = ours.keys() & others.keys()
    here = {token: row for token, row in a.items() if row not in renamed or token in b}
    there = {token: row for token, row in b.items() if row not in renamed or token in a}
    taken = set(there.values())
    wrong = [token for token, row in here.items() if row != there.get(token, row)]
    wrong += [token for token, row in here.items() if token not in there and (row in taken or row not in ours)]
    wrong += [token for token, row in there.items() if token not in here and row not in others]
    if not wrong:
        return None
    token, both = wrong[0], here.keys() & there.keys()
    same = sum(here[each] == there[each] for each in both)
    return (
        f"its tokenizer's vocabulary differs from that of {theirs.where} (token {_shown(token)} has id "
        f"{a.get(token)} here and {b.get(token)} there; of {len(here):,} tokens {len(both):,} are "
        f"in both, {same:,} with one id); merging needs one token a row: {WAYS}"
    )


def _rows(mine: Vocabulary, theirs: Vocabulary) -> str | None:
    """Describe embeddings of different lengths, by what the rows are for."""
    if mine.rows == theirs.rows:
        return None
    problem = f"vocab_size is {mine.rows}, but {theirs.rows} in {theirs.where}"
    if not mine.files or not theirs.files:
        return f"{problem}, and not both have a tokenizer that says what the rows are; save it beside the model"
    here, there = mine.tokens, theirs.tokens
    more = [f"{_shown(token)} is only here" for token in here if token not in there]
    more += [f"{_shown(token)} only there" for token in there if token not in here]
    rest = f" and {len(more) - 3:,} more" if len(more) > 3 else ""
    why = f"; {', '.join(more[:3])}{rest}" if more else f", for the same {len(here):,} tokens: the others are padding"
    cut = min(rows for rows in (mine.rows, theirs.rows) if rows is not None)
    return f"{problem}{why}; {WAYS}; or cut the longer one with model.resize_token_embeddings({cut})"


def _merges(mine: Vocabulary, theirs: Vocabulary) -> str | None:
    """Describe another tokenizer's merges (BPE) or scores (Unigram) over the same tokens."""
    here, there = (each.tokenizer.settings.get("model", {}) for each in (mine, theirs))
    a, b = here.get("merges") or [], there.get("merges") or []
    at = next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
    if here.get("type") != there.get("type"):
        what = f"is {here.get('type')}, but {there.get('type')}"
    elif a != b:
        what = (
            f"has other merges (from number {at} on, {_shown(a[at : at + 1])} and {_shown(b[at : at + 1])}) than that"
        )
    elif _scores(here, theirs) != _scores(there, mine):
        what = "has other scores of its tokens than that"
    else:
        return None
    return f"its tokenizer {what} in {theirs.where}, and so cuts texts differently: {ONE_TOKENIZER}"


def _scores(model: dict[str, Any], other: Vocabulary) -> dict[str, float]:
    """The scores of a Unigram tokenizer's tokens, of those that the other has too; empty for other kinds."""
    listed = model["vocab"] if isinstance(model.get("vocab"), list) else []
    return {token: score for token, score in listed if token in other.tokens}


def _cuts(mine: Vocabulary, theirs: Vocabulary) -> str | None:
    """Describe a text that is cut differently; there is none where settings are only written differently."""
    for text in PROBES:
        a, b = _cut(mine.tokenizer, text), _cut(theirs.tokenizer, text)
        if a != b:
            return (
                f"its tokenizer cuts {_shown(text)} into {_shown(a)}, but that of {theirs.where} into {_shown(b)} (its "
                f"normalizer or pre_tokenizer differs): {ONE_TOKENIZER}"
            )
    return None


def differences(own: Vocabulary, served: Tokenizer) -> list[str]:
    """Say in phrases how a model's own tokenizer differs from the one that it is served with.

    Returns:
        Empty where each text becomes the same tokens.
    """
    found = []
    only = [*(own.tokens.keys() - served.tokens.keys()), *(served.tokens.keys() - own.tokens.keys())]
    if only:
        names = ", ".join(map(_shown, sorted(only)[:3])) + (f" and {len(only) - 3:,} more" if len(only) > 3 else "")
        found.append(f"only one of the two has {names}")
    texts = [text for text in PROBES if _cut(own.tokenizer, text) != _cut(served, text)]
    around = [_cut(each, "", special=True) for each in (own.tokenizer, served)]
    if texts:
        found.append(f"they cut texts differently, such as {_shown(texts[0])}")
    elif around[0] != around[1]:
        found.append(f"its own adds {_shown(around[0])} to a text, and the served one {_shown(around[1])}")
    return found


def _cut(tokenizer: Tokenizer, text: str, *, special: bool = False) -> list[str]:
    ids = tokenizer.opened.encode(text, add_special_tokens=special)
    return [str(token) for token in tokenizer.opened.convert_ids_to_tokens(ids)]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:119] + "…"
