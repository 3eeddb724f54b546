"""What the benchmarks share: the SmolLM2 pair, an engine on it, real questions for it, and the last line of each."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from orchestrator.config.backends import has_gpu_engine
from orchestrator.config.load import load_config
from orchestrator.config.methods import DELTAS, METHODS
from orchestrator.config.workers import EngineSettings, Workers
from orchestrator.core.records import Question, Serving
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_serving
from orchestrator.recipes.recipe import Recipe, Source, between
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.suites import SuiteTask, load_suites, open_lm
from tasks.merging.checkpoint import merged_folder
from tasks.serving.boot import Boot
from tasks.serving.vllm_engine import VllmEngine

T = TypeVar("T")
MEASURED = ["linear", "slerp", *(name for name, method in METHODS.items() if method.whole == DELTAS)]
"""The methods that `recipe` makes recipes of."""
ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "examples" / "smollm2" / "models"
DATA = Path(os.environ.get("MERGEFRONT_DATA", ROOT.parent / "shared" / "data")) / "hf_mirror"


def small_demo(path: Path, recipes: list[dict[str, Any]], workers: dict[str, Any], **more: Any) -> Path:
    """A sweep file over the demo's parents and a few of its questions; a sweep's other keys by keyword."""
    demo = ROOT / "tasks" / "demo"
    content = {
        "parents": {name: {"model": str(demo / "parents" / name)} for name in ("clinical", "instruct")},
        "recipes": recipes,
        "objectives": {
            "clinical": {"tasks": ["demo_formulary"], "limit": 20},
            "instruction": {"tasks": ["demo_instructions"], "limit": 10, "metric": ["prompt_level_strict_acc"]},
        },
        "include_path": [str(demo / "lm_eval")],
        "dtype": "float32",
        "workers": {"gpus": 0, **workers},
        **more,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def smollm2(scratch: Path) -> list[Path]:
    """The pair of examples/smollm2 as two checkpoint folders, as `make smollm2` leaves them."""
    if not MODELS.is_dir():
        raise SystemExit(f"{MODELS} is not there; run .venv/bin/python examples/smollm2/prepare.py first")
    adapted = Source("d", "clinical", str(MODELS / "instruct"), None, str(MODELS / "adapter"))
    return [merged_folder(adapted, scratch), MODELS / "instruct"]


WORKERS = Workers(engine=EngineSettings(enforce_eager=True))  # on a GPU where the GPU build of vLLM is installed


def start(
    folder: Path, tokenizer: Path, scratch: Path, dtype: str = "bfloat16", share: float = 1.0, **settings: Any
) -> VllmEngine:
    """An engine without drafts, unless the settings have `drafts: True` or `"auto"`.

    Args:
        share: of a GPU, where there is one; several engines of a process share it.
    """
    settings = {"enforce_eager": True, "drafts": False, **settings}
    workers = Workers(gpus=share * has_gpu_engine(), engine=EngineSettings(**settings))
    serving = Serving("t", None, (), workers.engine.max_model_len, "x", (), "a", str(folder))
    return VllmEngine(Boot(folder, tokenizer, dtype, workers, 2, bool(settings["drafts"])), serving, scratch)


def suites(
    tasks: list[str], limit: int, shots: int | None, scratch: Path, dtype: str = "bfloat16", **objective: Any
) -> tuple[LedgerLM, list[SuiteTask]]:
    """lm-eval's tasks for the SmolLM2 pair, from the data sets in MERGEFRONT_DATA, and the model that asks them; more
    keys of the objective by keyword."""
    objective = {"tasks": tasks, "limit": limit, "metric": "acc", "num_fewshot": shots, **objective}
    sweep = {
        "parents": {
            "clinical": {"model": str(MODELS / "instruct"), "lora": str(MODELS / "adapter")},
            "instruct": {"model": str(MODELS / "instruct")},
        },
        "recipes": [{"method": "linear", "alpha": [0.5]}],
        "objectives": {"all": objective},
        "data_root": str(DATA),
        "dtype": dtype,
        "workers": {"gpus": 0, "engine": {"max_model_len": 2048}},
    }
    path = scratch / "questions.yaml"
    path.write_text(json.dumps(sweep))  # JSON is YAML
    config = load_config(path)
    lm = open_lm(config, make_serving(config, resolve(config), scratch / "serving"))
    return lm, load_suites(config.objectives, config, lm)


def questions(tasks: list[str], limit: int, shots: int | None, scratch: Path) -> list[Question]:
    _, found = suites(tasks, limit, shots, scratch)
    return list({question.id: question for suite in found for question in suite.questions}.values())


def recipe(method: str, parents: list[Path], ratio: float) -> Recipe:
    """A merge of two folders at a ratio of the second."""
    first, second = (Source(f"digest-{index}", f"p{index}", str(folder)) for index, folder in enumerate(parents))
    if METHODS[method].ratio:
        return between(method, first, second, ratio, {}, "bfloat16")
    seed = 0 if METHODS[method].random else None
    return Recipe(method, ((second, {"weight": ratio, "density": 0.5}),), first, {}, "bfloat16", seed)


def mergekit_yaml(wanted: Recipe, folder: Path) -> Path:
    """The command line, as its users run it."""
    config = folder.with_suffix(".yaml")
    config.write_text(wanted.to_yaml())
    command = [str(Path(sys.executable).with_name("mergekit-yaml")), str(config), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def timed(action: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what the action returns."""
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


def seconds(action: Callable[[], object]) -> float:
    return timed(action)[0]


def tell(name: str, ours: str, peer: str, times: dict[str, list[float]], **more: Any) -> None:
    """Each side's median and range, then the line of JSON: `ratio` is the peer's median over ours."""
    median = {side: statistics.median(values) for side, values in times.items()}
    for side, values in times.items():
        print(f"{side:8} median {median[side]:.3f} s  ({min(values):.3f} to {max(values):.3f})")
    result = {
        "benchmark": name,
        "ratio": round(median[peer] / median[ours], 2),
        **more,
        **{f"{side}_s": round(value, 3) for side, value in median.items()},
        "repeat": len(times[ours]),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}",
    }
    print(json.dumps(result))
