"""The demo's grid end to end, against the serial way: `mergekit-yaml`, a new engine, one prompt per choice.

    .venv/bin/python -m benchmarks.grid [--serial 4]

Ours is `mergefront run examples/demo.yaml` from the command line to the report, divided by its recipes. The serial way
asks the same questions of `--serial` recipes of the same grid, each in a new process. The last line is JSON: `ratio` is
the serial way's median time per recipe over ours.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import ROOT, mergekit_yaml, seconds, tell
from benchmarks.scoring import per_choice
from orchestrator.config.load import load_config
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_serving
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Recipe
from tasks.evaluation.suites import load_suites, open_lm
from tasks.serving.boot import Boot
from tasks.serving.vllm_engine import VllmEngine

DEMO = ROOT / "examples" / "demo.yaml"
ONE = """
import sys
from pathlib import Path
from benchmarks.grid import ask_all
ask_all(*map(Path, sys.argv[1:]))
"""


def grid() -> list[Recipe]:
    config = load_config(DEMO)
    return expand(config, {name: files.source for name, files in resolve(config).items()})


def ask_all(folder: Path, scratch: Path) -> None:
    """A new engine on a merged checkpoint, and all of the demo's questions in lm-eval's way."""
    config = load_config(DEMO)
    serving = make_serving(config, resolve(config), scratch / "serving")
    suites = load_suites(config.objectives, config, open_lm(config, serving))
    questions = [q for suite in suites for q in suite.questions]
    engine = VllmEngine(Boot(folder, folder, config.dtype, config.workers, 2), serving, scratch)
    per_choice(engine, [question for question in questions if question.decoding is None])
    engine.answer([question for question in questions if question.decoding is not None])


def serially(recipe: Recipe, scratch: Path) -> None:
    folder = mergekit_yaml(recipe, scratch / recipe.id)
    command = [sys.executable, "-c", ONE, str(folder), str(scratch / f"{recipe.id}-scratch")]
    subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serial", type=int, default=4, help="recipes to measure the serial way on")
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        recipes = grid()
        command = [str(Path(sys.executable).with_name("mergefront")), "run", str(DEMO), "--out", str(scratch / "run")]
        whole = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
        print(f"ours: {len(recipes)} recipes in {whole:.1f} s")
        chosen = [recipes[index * (len(recipes) - 1) // max(1, args.serial - 1)] for index in range(args.serial)]
        serial = [seconds(lambda one=one: serially(one, scratch)) for one in chosen]
    tell("grid", "ours", "serial", {"ours": [whole / len(recipes)], "serial": serial}, recipes=len(recipes))


if __name__ == "__main__":
    main()
