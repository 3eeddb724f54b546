"""Write docs/configuration.md: every key of a sweep file, read from the models in orchestrator/config.

    python docs/configuration.py            write the page
    python docs/configuration.py --check    exit status 1 where the committed page is stale

A section is a model, its table has a row a key, and a description is the docstring below the key. So a key that is
added, renamed or described anew is so on the page, and the page holds nothing that the schema does not.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from orchestrator.config.backends import BACKENDS
from orchestrator.config.sweep import SweepConfig

PAGE = Path(__file__).with_name("configuration.md")
TITLE = "The sweep file"
INTRO = """\
<!-- Written by docs/configuration.py from the schema in orchestrator/config. Do not edit; `make docs` writes it. -->

# Configuration

A sweep is one YAML file. This page lists every key that it can have, section by section; it is generated from the
schema that the file is checked against, so it is complete. An unknown key, a wrong type or a value out of range is
refused before anything starts, with the key, the value and a way out.

- Relative paths start at the folder of the sweep file, not at the working directory.
- `<name>` stands for a name of your choice, `[]` for an entry of a list.
- Plain values are read as YAML 1.2 reads them: `5e-5` is a number; a date, `1:30` and `010` are text. `yes` and `no`
  are `true` and `false`. Text that looks like a number, such as a revision `1234567`, is quoted.
- A file that contains a token or a password is refused: it is copied to the results.
"""
PLAIN = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Any: "any value"}
PLURALS = {"text": "texts", "whole number": "whole numbers", "number": "numbers"}
CHECKED = {
    "check_location": "path or address",
    "_check_backend": " or ".join(f"`{name}`" for name in BACKENDS),
    "_check_name": "name",
    "_expand_ratios": "number, list of numbers, `{start, stop, step}`, or filters",
}
"""What the types with a validator are called, by the validator's name."""
LIMITED = {"_check_ratios": "from 0 to 1", "_ratio": "from 0 to 1"}
"""What a validator demands besides the type."""
LISTED = "_listed"
"""The validator that takes one value for a list of one."""


@dataclass
class Section:
    """A model, and everywhere in the file that it stands."""

    model: type[BaseModel]
    places: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"`{self.places[0]}`" if self.places[0] else TITLE


# -------------------------------------------------------------------- the models
def sections(root: type[BaseModel] = SweepConfig) -> list[Section]:
    """Every model below the root, each once, in the order in which the file's keys lead there."""
    found: dict[type[BaseModel], Section] = {}

    def visit(model: type[BaseModel], place: str) -> None:
        known = model in found
        section = found.setdefault(model, Section(model))
        if place not in section.places:
            section.places.append(place)
        if not known:
            for name, info in model.model_fields.items():
                for inner, below in models_in(info.annotation, f"{place}.{name}".removeprefix(".")):
                    visit(inner, below)

    visit(root, "")
    return list(found.values())


def models_in(annotation: Any, place: str) -> Iterator[tuple[type[BaseModel], str]]:
    """The models that a key may hold, with their places in the file."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, place
        return
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = inner[:1]
    elif origin is list:
        place = f"{place}[]"
    elif origin is dict:
        inner, place = inner[1:], f"{place}.<name>"
    elif origin is Literal:
        return
    for part in inner:
        yield from models_in(part, place)


@cache
def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Key → the docstring below it, inherited ones included. pydantic would read them too (`use_attribute_docstrings`),
    but at every import."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(body, ast.ClassDef), "the source of a class is a class"
        for statement, after in zip(body.body, body.body[1:], strict=False):
            match statement, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


# -------------------------------------------------------------------- words
def type_words(annotation: Any, metadata: tuple[Any, ...], links: dict[type[BaseModel], str]) -> str:
    """A type as people say it, with its limits."""
    validators = {name for item in metadata if (name := validator(item))}
    checked = next((CHECKED[name] for name in CHECKED if name in validators), None)
    words = checked or _plain_words(annotation, links)
    if LISTED in validators:  # one value may stand for a list of one
        words = f"{words.removeprefix('list of ').removesuffix('s')}, or a list"
    limits = [*limit_words(annotation, metadata), *(LIMITED[name] for name in LIMITED if name in validators)]
    return f"{words}, {', '.join(limits)}" if limits else words


def _plain_words(annotation: Any, links: dict[type[BaseModel], str]) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(inner[0], inner[1:], links)
    if origin in (Union, UnionType):
        parts = [type_words(part, (), links) for part in inner if part is not NoneType]
        return " or ".join(dict.fromkeys(parts))
    if origin is Literal:
        *values, last = (f"`{value}`" for value in inner)
        return f"{', '.join(values)} or {last}" if values else last
    if origin is list:
        words = type_words(inner[0], (), links)
        plain, _, limits = words.partition(", ")
        if plain not in PLURALS:
            return f"list of {words}"
        return f"list of {PLURALS[plain]}" + (f" ({limits})" if limits else "")
    if origin is dict:
        value = type_words(inner[1], (), links)
        return f"name → {f'({value})' if '→' in value else value}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return links[annotation]
    return PLAIN[annotation]


def validator(item: Any) -> str | None:
    """The name of the function behind a pydantic validator."""
    function = getattr(item, "func", None)
    return getattr(function, "__name__", None)


def limit_words(annotation: Any, metadata: tuple[Any, ...]) -> Iterator[str]:
    least = most = None
    for item in metadata:
        match item:
            case FieldInfo(metadata=more):
                yield from limit_words(annotation, tuple(more))
            case annotated_types.Ge(ge=value):
                yield f"at least {number(value)}"
            case annotated_types.Gt(gt=value):
                yield f"above {number(value)}"
            case annotated_types.Le(le=value):
                yield f"at most {number(value)}"
            case annotated_types.Lt(lt=value):
                yield f"below {number(value)}"
            case annotated_types.MinLen(min_length=value):
                least = value
            case annotated_types.MaxLen(max_length=value):
                most = value
    if not any(get_origin(part) in (list, dict) for part in (annotation, *get_args(annotation))):
        yield from ["not empty"] if least else []
    elif least and least == most:
        yield f"exactly {least} entries"
    elif least:
        yield f"at least {least} {'entry' if least == 1 else 'entries'}"


def number(value: Any) -> str:
    """Written out: 0.00005, which every reader of YAML takes for a number."""
    return f"{Decimal(repr(value)):f}".removesuffix(".0") if isinstance(value, float) else str(value)


def default_words(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default
    if info.default_factory is not None or value is None or isinstance(value, BaseModel) or value in ([], {}):
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`[{', '.join(number(item) for item in value)}]`"
    return f"`{number(value)}`"


# -------------------------------------------------------------------- the page
def page() -> str:
    found = sections()
    links = {section.model: f"[{section.title}](#{slug(section.title)})" for section in found}
    _check_names(found)
    return INTRO + "".join(_section(section, links) for section in found)


def _section(section: Section, links: dict[type[BaseModel], str]) -> str:
    model, own = section.model, docstrings(section.model)
    lines = ["", f"## {section.title}", ""]
    if doc := model.__dict__.get("__doc__"):
        lines += [*textwrap.wrap(escape(" ".join(doc.split())), 120), ""]
    if others := section.places[1:]:
        lines += [*textwrap.wrap(f"The same keys stand at {', '.join(f'`{place}`' for place in others)}.", 120), ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        words = type_words(info.annotation, tuple(info.metadata), links)
        cells = (f"`{name}`", words, default_words(info), escape(own.get(name, "")))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells).rstrip() + " |")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Docstrings are Markdown already, but for what HTML would read as a tag."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def slug(title: str) -> str:
    """A heading's anchor, as MkDocs and GitHub both make it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower())).strip("-")


def undescribed(found: list[Section]) -> list[str]:
    """Keys without a docstring."""
    keys = [(section, name) for section in found for name in section.model.model_fields]
    return [f"{section.title}: {name}" for section, name in keys if name not in docstrings(section.model)]


def _check_names(found: list[Section]) -> None:
    """A validator that is renamed must not take its words with it unnoticed."""
    seen = set(_validators_in([info for section in found for info in section.model.model_fields.values()]))
    if lost := {*CHECKED, *LIMITED, LISTED} - seen:
        raise SystemExit(f"docs/configuration.py names validators that no key has any more: {', '.join(sorted(lost))}")


def _validators_in(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        metadata = part.metadata if isinstance(part, FieldInfo) else getattr(part, "__metadata__", ())
        yield from (name for item in metadata if (name := validator(item)))
        inner = [part.annotation] if isinstance(part, FieldInfo) else list(get_args(part))
        yield from _validators_in(inner)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is stale")
    wanted = page()
    if not parser.parse_args().check:
        PAGE.write_text(wanted, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted:
        print(f"{PAGE}: is not what the schema in orchestrator/config says; run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
