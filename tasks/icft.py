"""ICFT: incremental curriculum-based fine-tuning (arXiv 2502.00832), on trl's SFTTrainer and peft's LoRA.

The paper's abstract names its parts (a curriculum from general to specialised, two memories, parameter-efficient
training, L_total = L_consistency + L_task + L_fine-tune) and gives no formulas. These were taken, so that every term
has rows of its own and no two pull the same row in two directions:

- **Curriculum**: the examples in stages, by the starting model's mean loss a token. What a general model already finds
  likely is closest to general language, so this order goes from general to specialised. A model's own (weak) labels are
  likely to it, so they come first.
- **L_task**: cross-entropy of the completions of the present stage.
- **L_fine-tune**: cross-entropy of replayed examples of earlier stages: the short-term memory (the stage before) and
  the specialised part of the long-term memory (a reservoir over all stages before that one). They were learned, and
  must stay learned; asking them to stay as they were *at the start* would unlearn them.
- **L_consistency**: KL(start ‖ tuned), a token, over the completions of the general instructions in the long-term
  memory, where `start` is the model with its adapter off. The direction is distillation's (Li & Hoiem 2016, Learning
  without Forgetting): what the starting model may say, the tuned one may still say. It needs no labels, hence no
  weight.

Each term is a mean over its tokens in a batch, and 0 in a batch that has no row for it. Cross-entropies are weighted
by the examples' confidence and divided by the number of tokens, not by the sum of weights: a batch of doubtful labels
makes a small step. The terms' own weights are settings, 1 each.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from peft import LoraConfig
from torch.nn import functional
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from orchestrator.config import Parent, UserError
from orchestrator.files import make_private, write_json
from orchestrator.parents import open_model
from tasks.curriculum import TERMS, IcftSettings, Stage, Term, make_schedule
from tasks.merge import appearing
from tasks.rows import IGNORED, Collator, Data, difficulties, load, save

METRICS, BEGUN, COMPLETE = "icft.json", "begun.json", "COMPLETE"


def train_icft(
    model_folder: Path, tokenizer_folder: Path, data: Data, settings: IcftSettings, out: Path, seed: int
) -> dict[str, Any]:
    """Fine-tune a checkpoint and write the tuned one to `out`: all of it or nothing. Called again it goes on from its
    last checkpoint, which lies in a folder beside `out` until the run is finished; a finished run is not repeated.

    Args:
        model_folder: weights in safetensors; a merged checkpoint need not have a tokenizer.
        tokenizer_folder: what `data` was encoded with; its files are written beside the tuned weights.

    Returns:
        What `out`/icft.json holds. `seconds`: of training, in this process. `stages`: how many `examples` each has, and
        their mean `difficulty` in nats a token. `history`: for each step, `loss` and its three terms, each a mean over
        the step's batches and before its weight, in nats a token.

    Raises:
        UserError: no examples or no general instructions, an example that would never be shown, or a run that was begun
            with something else.
    """
    if (out / METRICS).exists():
        return dict(json.loads((out / METRICS).read_text(encoding="utf-8")))
    if out.exists():
        raise UserError(f"ICFT: {out} exists already and holds no finished run; write elsewhere")
    work = make_private(out.with_name(f".{out.name}.icft"))
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    digest = open_model("ICFT", "model", Parent(model=str(model_folder))).source.digest
    key = _key([digest, data, settings, seed])
    model = load(model_folder)
    difficulty = _begin(work, key, model, data)
    stages = make_schedule(difficulty, len(data.general), settings, seed)
    trainer = make_trainer(model, tokenizer, data, stages, settings, work, seed)
    begun = time.monotonic()
    trainer.train(resume_from_checkpoint=last_checkpoint(work))
    metrics = {
        "seconds": time.monotonic() - begun,
        "stages": [
            {"examples": len(stage.examples), "difficulty": fmean(difficulty[index] for index in stage.examples)}
            for stage in stages
        ],
        "history": [
            {key: entry[key] for key in ("step", "loss", *TERMS)}
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
    }
    with appearing(out) as folder:
        assert folder is not None, "only a finished run has this folder"
        save(trainer.model, tokenizer, model_folder, folder)
        write_json(folder / METRICS, metrics)
    shutil.rmtree(work)
    return metrics


def _key(inputs: Any) -> str:
    return hashlib.sha256(json.dumps(inputs, default=asdict).encode()).hexdigest()


def _begin(work: Path, key: str, model: Any, data: Data) -> list[float]:
    """The difficulties, measured once: a resumed run reads those that it began with, and so has the same stages and
    memories.

    Raises:
        UserError: there is a checkpoint of a run with something else.
    """
    note = work / BEGUN
    begun: dict[str, Any] = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {"key": None}
    if begun["key"] != key:
        if last_checkpoint(work):
            raise UserError(
                f"ICFT: {work} holds a run with another model, examples, settings or seed; delete it or write elsewhere"
            )
        begun = {"key": key, "difficulty": difficulties(model, data.examples, data.pad)}
        write_json(note, begun)
    return list(begun["difficulty"])


class IcftTrainer(SFTTrainer):  # type: ignore[misc]
    """The three terms of the loss; all else is trl's."""

    loss_is_scaled_for_ga = False  # a batch's loss is a mean: accumulation divides by the number of batches

    def __init__(self, settings: IcftSettings, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.term_weights = {term: getattr(settings, term) for term in TERMS}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """The weighted sum of the terms, which are logged unweighted."""
        terms = self.terms(model, inputs)
        for term, value in terms.items():
            self._metrics["train"][term].append(value.item())
        return sum((self.term_weights[term] * value for term, value in terms.items()), torch.zeros(()))

    def terms(self, model: Any, inputs: dict[str, Any]) -> dict[Term, torch.Tensor]:
        """Each a scalar, in nats a token; 0 where the batch has no row for it."""
        of = {term: inputs["term"] == number for number, term in enumerate(TERMS)}
        tokens = {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}
        labelled, weight = ~of["consistency"], inputs["weight"]
        # trl's head computes the log-probabilities in tiles: logits of all rows need not fit.
        learned = model(**{k: v[labelled] for k, v in tokens.items()}, use_cache=False, fused_lm_head=True)
        losses, rows = -learned.log_probs.sum(1) * weight[labelled], learned.label_mask.sum(1)
        found: dict[Term, torch.Tensor] = {}
        for term in ("task", "fine_tune"):
            chosen = of[term][labelled]
            found[term] = losses[chosen].sum() / rows[chosen].sum().clamp(min=1)
        kept = of["consistency"]
        found["consistency"] = (
            self._divergence(model, {k: v[kept] for k, v in tokens.items()}) if kept.any() else losses.new_zeros(())
        )
        return found

    def _divergence(self, model: Any, tokens: dict[str, Any]) -> torch.Tensor:
        """KL(start ‖ tuned) over the next token, the mean over the completions' positions."""
        chosen = tokens.pop("labels")[:, 1:] != IGNORED

        def log_probs() -> torch.Tensor:
            logits = model(**tokens, use_cache=False).logits[:, :-1]
            return logits[chosen].float().log_softmax(-1)

        with torch.no_grad(), self.accelerator.unwrap_model(model).disable_adapter():
            start = log_probs()
        return functional.kl_div(log_probs(), start, log_target=True, reduction="batchmean")


class MarkComplete(TrainerCallback):  # type: ignore[misc]
    """A checkpoint that is cut off while it is written has no marker, and is not gone on from."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def make_trainer(
    model: Any, tokenizer: Any, data: Data, stages: Sequence[Stage], settings: IcftSettings, work: Path, seed: int
) -> IcftTrainer:
    gpu = model.device.type == "cuda"
    arguments = SFTConfig(
        output_dir=str(work),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.rows,
        gradient_accumulation_steps=settings.accumulate,
        train_sampling_strategy="sequential",  # the order is the schedule's
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        bf16=gpu,
        use_cpu=not gpu,
        gradient_checkpointing=gpu,
        # Our own rows: trl would cut and drop examples.
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,  # the newer one may be half-written
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    trainer = IcftTrainer(
        settings,
        model=model,
        args=arguments,
        train_dataset=data.rows(stages),
        data_collator=Collator(data.pad),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear"),
        callbacks=[MarkComplete()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def last_checkpoint(work: Path) -> str | None:
    """The newest that was written to its end."""
    complete = sorted(work.glob(f"checkpoint-*/{COMPLETE}"), key=lambda path: int(path.parent.name.split("-")[1]))
    return str(complete[-1].parent) if complete else None
