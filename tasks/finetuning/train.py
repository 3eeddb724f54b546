"""One run of supervised fine-tuning, by trl: from a checkpoint folder to a tuned one, resumed where it stopped.

What a run leaves in its folder (`orchestrator.recipes.tuning.RunFolder`): the tuned model (safetensors, in the sweep's
dtype, adapters merged in) and its result, which is written last and says that it is finished; on the way checkpoints,
of which the newest complete one is kept. Examples are passed as tokens: trl neither cuts nor packs nor drops any, and
what it would train on is compared with what it was given.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from orchestrator.config.finetune import REPLAYING
from orchestrator.core.files import make_private, write_json
from orchestrator.core.records import content
from orchestrator.models.tokenizer import TOKENIZER_FILES
from tasks.device import device_name
from tasks.finetuning.examples import IGNORED, Labelled
from tasks.finetuning.icft import IcftTrainer
from tasks.finetuning.rows import open_model, open_tokenizer
from tasks.finetuning.run import Diverged, ExamplesChanged, Run

COMPLETE = "COMPLETE"
"""The file that a checkpoint has when it was written to its end."""
SCHEDULED = {
    "train_sampling_strategy": "sequential",
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "remove_unused_columns": False,
}
"""trl's settings where the rows and their order are ICFT's schedule."""
PROGRESS_S = 5.0
"""Seconds between notes of a run's progress."""


def train(run: Run) -> None:
    """Train a run to its end, from its newest checkpoint if it has one; nothing is done where it is finished.

    Raises:
        ExamplesChanged: trl would not train on every example.
        Diverged: the loss is NaN or infinite.
    """
    if run.is_finished:
        return
    make_private(run.files.checkpoints)
    last, spent = last_checkpoint(run.files.checkpoints)
    trainer = make_trainer(run)
    recorder = Recorder(run, spent)
    trainer.add_callback(recorder)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    seconds = recorder.seconds()
    save_model(trainer, run)
    if trainer.is_world_process_zero():
        _write_result(run, trainer, seconds)
        shutil.rmtree(run.files.checkpoints)
        run.files.progress.unlink(missing_ok=True)
    del trainer
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def make_trainer(run: Run) -> Any:
    """Make the trl trainer of a run, its model and data loaded.

    Raises:
        ExamplesChanged: it would not train on every example.
    """
    set_seed(run.tuning.seed)
    lora = run.tuning.settings.get("lora")
    # Weights that are trained are float32, computed with in bfloat16 on GPUs: steps of 5e-5 would vanish in bfloat16.
    frozen_on_gpu = lora is not None and torch.cuda.is_available()
    dtype = torch.bfloat16 if frozen_on_gpu else torch.float32
    model = open_model(run.start, dtype)
    given = {
        "model": model,
        "args": arguments(run),
        "processing_class": open_tokenizer(run.tokenizer, model.get_input_embeddings().num_embeddings),
        "peft_config": adapter(lora) if lora else None,
    }
    if run.tuning.method in REPLAYING:
        trainer = IcftTrainer(run.examples, run.general, run.tuning, **given)
    else:
        trainer = _plain_trainer(run.examples, given)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _plain_trainer(examples: Sequence[Labelled], given: dict[str, Any]) -> Any:
    assert all(each.weight == 1 for each in examples), "trl's loss has no weights"
    rows = [
        {
            "input_ids": [*each.prompt, *each.response],
            "completion_mask": [0] * len(each.prompt) + [1] * len(each.response),
        }
        for each in examples
    ]
    trainer = SFTTrainer(train_dataset=Dataset.from_list(rows), **given)
    check_examples(trainer.train_dataset["labels"], examples)
    return trainer


def arguments(run: Run) -> Any:
    """Make trl's settings: those of the run, no packing, no cutting, the loss on responses only."""
    settings, gpu = run.tuning.settings, torch.cuda.is_available()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    sharded = processes > 1
    return SFTConfig(
        output_dir=str(run.files.checkpoints),
        max_steps=settings["steps"],
        learning_rate=settings["learning_rate"],
        per_device_train_batch_size=settings["batch_size"],
        gradient_accumulation_steps=settings["accumulation"] // processes,
        optim=settings["optimizer"],
        max_length=None,
        packing=False,
        completion_only_loss=True,
        gradient_checkpointing=run.gradient_checkpointing and not sharded,
        bf16=gpu,
        use_cpu=not gpu,
        fsdp=sharded,
        fsdp_config={"activation_checkpointing": run.gradient_checkpointing} if sharded else None,
        seed=run.tuning.seed,
        save_strategy="steps",
        save_steps=run.save_steps,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
        **(SCHEDULED if run.tuning.method in REPLAYING else {}),
    )


def adapter(lora: dict[str, Any]) -> Any:
    """Make peft's settings of a LoRA adapter on all linear layers."""
    return LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def check_examples(labels: Sequence[Sequence[int]], examples: Sequence[Labelled]) -> None:
    """Compare the examples that the trainer would train on with those that it was given.

    Args:
        labels: a row an example, the trainer's.

    Raises:
        ExamplesChanged: an example is missing, or has other tokens in its loss than its response.
    """
    trained = [tuple(token for token in row if token != IGNORED) for row in labels]
    if trained != [each.response for each in examples]:
        raise ExamplesChanged(
            f"{len(examples)} examples were given, but trl would train on {len(trained)}, "
            f"{sum(map(bool, trained))} of them with a loss; nothing was trained"
        )


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes the progress, removes all but the newest complete checkpoint, and stops a run whose loss is not finite.

    Args:
        spent: seconds of training before this process.
    """

    def __init__(self, run: Run, spent: float) -> None:
        self.run, self.spent = run, spent
        self.began, self.written = time.monotonic(), 0.0

    def seconds(self) -> float:
        """Sum up the seconds of training, those of earlier processes included."""
        return self.spent + time.monotonic() - self.began

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the new checkpoint as complete, and remove the others."""
        if state.is_world_process_zero:
            newest = self.run.files.checkpoints / f"checkpoint-{state.global_step}"
            write_json(newest / COMPLETE, {"seconds": self.seconds()})
            for other in self.run.files.checkpoints.glob("checkpoint-*"):
                if other != newest:
                    shutil.rmtree(other)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Write the progress.

        Raises:
            Diverged: the loss is NaN or infinite.
        """
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {state.global_step}; lower finetune.learning_rate")
        if state.is_world_process_zero and time.monotonic() - self.written >= PROGRESS_S:
            self.written = time.monotonic()
            write_json(self.run.files.progress, {"step": state.global_step, "steps": state.max_steps, "loss": loss})


def last_checkpoint(folder: Path) -> tuple[Path | None, float]:
    """Find the newest checkpoint that was written to its end, with the seconds of training until then."""
    complete = [marker.parent for marker in folder.glob(f"checkpoint-*/{COMPLETE}")]
    if not complete:
        return None, 0.0
    newest = max(complete, key=lambda path: int(path.name.split("-")[1]))
    return newest, float(json.loads((newest / COMPLETE).read_text())["seconds"])


def save_model(trainer: Any, run: Run) -> None:
    """Write the tuned weights, all at once: cast to the sweep's dtype, an adapter merged in.

    The tokenizer that they were trained with is written beside them.
    """
    temporary = run.files.saving
    trainer.save_model(str(temporary / "trained"))
    if not trainer.is_world_process_zero():
        return
    if "lora" in run.tuning.settings:
        start = open_model(run.start, torch.float32)
        model = PeftModel.from_pretrained(start, temporary / "trained").merge_and_unload()
    else:
        model = open_model(temporary / "trained", torch.float32)
    model.to(getattr(torch, run.dtype)).save_pretrained(temporary / "model")
    for name in TOKENIZER_FILES:
        if (run.tokenizer / name).exists():
            shutil.copyfile(run.tokenizer / name, temporary / "model" / name)
    shutil.rmtree(run.files.model, ignore_errors=True)
    (temporary / "model").rename(run.files.model)
    shutil.rmtree(temporary)


def _write_result(run: Run, trainer: Any, seconds: float) -> None:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    fields = {field.name: getattr(run.tuning, field.name) for field in dataclasses.fields(run.tuning)}
    note = {
        **{key: content(value) for key, value in fields.items()},
        "seconds": seconds,
        "processes": trainer.accelerator.num_processes,
        "device": trainer.accelerator.device.type,
        "device_name": device_name(trainer.accelerator.device.type == "cuda"),
        "tokens": sum(len(each.prompt) + len(each.response) for each in run.examples),
        "truncated": sum(each.truncated > 0 for each in run.examples),
        "losses": losses,
        **({"icft": trainer.summary()} if run.tuning.method in REPLAYING else {}),
        "versions": {name: importlib.metadata.version(name) for name in ("trl", "transformers", "peft", "torch")},
    }
    write_json(run.files.result, note)
