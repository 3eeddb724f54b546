"""200 steps of LoRA on a model of Llama-3.2-1B's shape, by the program that a sweep trains with."""

from __future__ import annotations

import math
import statistics

import torch

from benchmarks.common import seconds
from benchmarks.gpu.models import count, finish, make_model, parse, step_parser
from benchmarks.sft import PROMPT, RESPONSE, ROWS, make_run
from tasks.finetuning.train import Recorder, make_trainer


def main() -> None:
    parser = step_parser(__doc__, "1b")
    parser.add_argument("--steps", type=int)
    args = parse(parser)
    steps = args.steps or (200 if args.gpu else 5)
    model = make_model(args.scratch / "model", args.shape, 0, "cuda" if args.gpu else "cpu")
    run = make_run(args.scratch / "run", steps, "lora", model)
    run.folder.mkdir()
    trainer = make_trainer(run)
    trainer.add_callback(Recorder(run, 0.0))
    spent = seconds(trainer.train)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    settings = run.tuning.settings
    rows = settings["batch_size"] * settings["accumulation"]
    tokens, epoch = steps * rows * (PROMPT + RESPONSE), ROWS // rows
    peak = {"peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2)} if args.gpu else {}
    finish(
        {
            "shape": args.shape,
            "steps": steps,
            "train_s": round(spent, 1),
            "tokens_s": round(tokens / spent),
            "tflop_s": round(6 * count(args.shape) * tokens / spent / 1e12, 2),
            **peak,
            "loss_first": round(statistics.mean(losses[:epoch]), 4),
            "loss_last": round(statistics.mean(losses[-epoch:]), 4),
        }
    )
    if len(losses) != steps or not all(map(math.isfinite, losses)):
        raise SystemExit(f"{len(losses)} of {steps} steps were made, or a loss is not finite")


if __name__ == "__main__":
    main()
