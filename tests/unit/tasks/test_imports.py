"""What `plan`, `report` and the driver of a sweep import: none of the libraries that only workers need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.config.load import load_config
from orchestrator.models.resolve import resolve
from tests.helpers.paths import EXAMPLES, ROOT

LOADS = """
import importlib, pkgutil, sys
from pathlib import Path

def heavy():
    return sorted({"torch", "ray", "vllm", "bert_score"} & set(sys.modules))

import tasks.benchmarks, tasks.evaluation, tasks.generation
for package in (tasks.benchmarks, tasks.evaluation, tasks.generation):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name, heavy())

from orchestrator.config.load import load_config
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_serving
from tasks.evaluation.suites import load_suites, open_lm, remember

config = load_config(Path("examples/demo.yaml"))
lm = open_lm(config, make_serving(config, resolve(config), Path(sys.argv[1])))
suites = load_suites(config.objectives, config, lm)
remember(suites, config, Path(sys.argv[1]))
print(len(suites), "suites", heavy())
"""


@pytest.mark.slow
def test_the_demos_suites_are_loaded_without_torch_ray_and_vllm(tmp_path: Path) -> None:
    resolve(load_config(EXAMPLES / "demo.yaml"))  # transformers' list of the parents' tensors is kept from then on
    command = [sys.executable, "-c", LOADS, str(tmp_path)]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[-1] == "2 suites []"
    assert [line for line in lines if not line.endswith(" []")] == []
    assert {"tasks.evaluation.suites []", "tasks.generation.metrics []"} <= set(lines)
