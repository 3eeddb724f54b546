"""The documentation's programs: what they find, and what they write."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import BeforeValidator, Field

from orchestrator.config.sweep import SweepConfig
from orchestrator.config.types import Strict

ROOT = Path(__file__).resolve().parents[2]


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_links = program("check_links")
configuration = program("configuration")


def test_the_readme_is_read_in_a_few_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    assert check_links.problems() == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](docs/other.md)", ""),
        ("[a](docs/other.md#two-words)", ""),
        ("[a](docs/other.md#two-words-1)", ""),
        ("[a](#here)\n\n# Here", ""),
        ("[a](https://example.org/nowhere) `tasks/there.py` `a/b`", ""),
        ("```\n[a](nowhere.md)\n```", ""),
        ("[a](nowhere.md)", "README.md, line 1: nowhere.md is not there"),
        ("text\n\n![a](nowhere.png)", "README.md, line 3: nowhere.png is not there"),
        ("| [a](nowhere.md) |\n|---|", "README.md, line 1: nowhere.md is not there"),
        ("[a](docs/other.md#three)", "README.md, line 1: docs/other.md#three has no such heading"),
        ("[a](../else)", "README.md, line 1: ../else leads out of the repository"),
        ("`tasks/gone.py`", "README.md, line 1: tasks/gone.py is not there"),
    ],
)
def test_a_link_that_leads_nowhere_is_named_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    for name, content in {
        "README.md": text,
        "docs/other.md": "## Two `words`\n\n## Two words!",
        "tasks/there.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert check_links.problems(tmp_path) == ([problem] if problem else [])


def blocks() -> list[tuple[str, str]]:
    """Every block of YAML in the documentation that is a part of a sweep file, with its place."""
    found = []
    for page in check_links.pages():
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            if set(yaml.safe_load(block)) <= set(SweepConfig.model_fields):
                found.append((f"{page.name} {number}", block))
    return found


@pytest.mark.parametrize("block", [pytest.param(block, id=place) for place, block in blocks()])
def test_what_the_documentation_shows_of_a_sweep_file_is_valid(block: str) -> None:
    names = [name for name in ("clinical", "instruct", "base") if name != "base" or "base" in block]
    objective = {"tasks": ["medical"], "split": "search"}
    own = yaml.safe_load(block)
    SweepConfig.model_validate(
        {
            "parents": {name: {"model": name} for name in names},
            "recipes": [] if "recipes" in own else [{"method": "linear", "alpha": 0.5, "between": names[:2]}],
            "objectives": {"medical": objective, "instruction": objective},
            **own,
        }
    )


def _listed(value: object) -> object:
    return value


class Inner(Strict):
    """What is <inside>."""

    share: float = Field(default=5e-5, gt=0, le=1)
    """Of `<all>` and <some>."""


class Outer(Strict):
    inner: dict[str, Inner] = Field(min_length=2)
    again: list[str | Inner] = []
    kind: Annotated[list[Literal["a", "b"]], BeforeValidator(_listed)] = ["a"]
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    both: list[str] | None = Field(default=None, min_length=2, max_length=2)
    on: bool = False


def test_a_page_has_a_section_a_model_and_a_row_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    outer, inner = configuration.sections(Outer)
    assert (outer.title, inner.title) == ("The sweep file", "`inner.<name>`")
    assert inner.places == ["inner.<name>", "again[]"]
    monkeypatch.setattr(configuration, "sections", lambda: [outer, inner])
    monkeypatch.setattr(configuration, "_check_names", lambda found: None)
    rows = [line for line in configuration.page().splitlines() if line.startswith("| `")]
    assert rows == [
        "| `inner` | name → [`inner.<name>`](#innername), at least 2 entries | required | |",
        "| `again` | list of text or [`inner.<name>`](#innername) | – | |",
        "| `kind` | `a` or `b`, or a list | `[a]` | |",
        "| `seeds` | list of whole numbers (at least 0), at least 1 entry | `[0]` | |",
        "| `both` | list of texts, exactly 2 entries | – | |",
        "| `on` | `true` or `false` | `false` | |",
        "| `share` | number, above 0, at most 1 | `0.00005` | Of `<all>` and &lt;some>. |",
    ]
    assert "What is &lt;inside>." in configuration.page()


def test_every_key_of_a_sweep_file_is_described() -> None:
    assert configuration.undescribed(configuration.sections()) == []


def test_the_page_for_python_has_every_name() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    tree = ast.parse((ROOT / "mergefront" / "__init__.py").read_text(encoding="utf-8"))
    (names,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(names)


def test_a_validator_that_is_renamed_does_not_lose_its_words() -> None:
    with pytest.raises(SystemExit, match="_expand_ratios"):
        configuration._check_names(configuration.sections(Outer))
