"""The import rule's own check, on trees that keep and break it; and what a command loads, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.config.load import load_config
from orchestrator.models.resolve import resolve
from tests.helpers.architecture import circles, hidden_imports
from tests.helpers.paths import EXAMPLES, ROOT

HEAVY = {"torch", "ray", "vllm"}


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / (name.replace("__", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_the_tree_keeps_the_rule() -> None:
    assert circles(ROOT) == []
    assert hidden_imports(ROOT) == []


def test_a_circle_is_found_however_far_round(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        tune__a="from tune.b import one",
        tune__b="from tune import c",
        tune__c="if TYPE_CHECKING:\n    from tune.a import two",
    )
    assert {name for circle in circles(root) for name in circle} == {"tune.a", "tune.b", "tune.c"}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("tasks__x", "def f():\n    from tasks.y import z", ["tasks/x.py:2 imports tasks.y"]),
        ("tasks__x", "async def f():\n    import tasks.y", ["tasks/x.py:2 imports tasks.y"]),
        ("tasks__x", "if TYPE_CHECKING:\n    from tasks import y", ["tasks/x.py:2 imports tasks.y"]),
        ("tasks__x", "def f():\n    import torch", []),
        ("tasks__x", "from tasks.y import z", []),
        ("orchestrator__cli__x", "def f():\n    from tasks.y import z", []),
    ],
)
def test_an_import_inside_a_function_is_found(tmp_path: Path, name: str, text: str, found: list[str]) -> None:
    assert hidden_imports(write(tmp_path, tasks__y="z = 1", **{name: text})) == found


def loaded(*command: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    program = (
        "import sys\n"
        "from orchestrator.cli.main import main\n"
        "try:\n    code = main(sys.argv[1:])\n"
        "except SystemExit as end:\n    code = end.code\n"
        "print('MODULES', *sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.rpartition("MODULES")[2].split())


def test_help_loads_no_library() -> None:
    assert not loaded("--help") & (HEAVY | {"pydantic", "numpy", "yaml", "pyarrow", "rich", "transformers"})


def test_plan_loads_no_engine() -> None:
    resolve(load_config(EXAMPLES / "demo.yaml"))  # what transformers reads of the parents is kept from then on
    assert not loaded("plan", "examples/demo.yaml") & HEAVY


def test_status_loads_no_engine(old_results: Path) -> None:
    assert not loaded("status", str(old_results / "grid")) & (HEAVY | {"transformers", "lm_eval", "optuna"})
