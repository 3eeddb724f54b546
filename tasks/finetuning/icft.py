"""ICFT-style, from the abstract: incremental curriculum-based fine-tuning (arXiv 2502.00832) by trl and peft's LoRA.

The paper itself was not available. Its abstract names its parts (a curriculum from general to specialised, two
memories, parameter-efficient training, L_total = L_consistency + L_task + L_fine-tune) and gives no formulas. These
were chosen, so that every term has rows of its own and no two pull the same row in two directions:

- **Curriculum**: the examples in stages, by the starting model's mean loss a token. What a general model already finds
  likely is closest to general language, so this order goes from general to specialised. A model's own (weak) labels are
  likely to it, so they come first. Length or rarity may take its place (`tasks.finetuning.difficulty`).
- **L_task**: cross-entropy of the completions of the present stage.
- **L_fine-tune**: cross-entropy of replayed examples of earlier stages: the short-term memory (the stage before) and
  the specialised part of the long-term memory (a reservoir over all stages before that one). They were learned, and
  must stay learned; keeping their likelihood as it was *at the start* would unlearn them.
- **L_consistency**: KL(start ‖ tuned), a token, over the completions of the general instructions in the long-term
  memory, where `start` is the model with its adapter off. The direction is distillation's (Li & Hoiem 2016, Learning
  without Forgetting): what the starting model may say, the tuned one may still say. It needs no labels, hence no
  weight.

Each term is a mean over its tokens in a batch, and 0 in a batch that has no row for it. Cross-entropies are weighted
by the examples' confidence and divided by the number of tokens, not by the sum of weights: a batch of doubtful labels
makes a small step. The terms' own weights are settings, 1 each.

The method `lora_replay` is the control: the same batches, general instructions and terms, but the examples in random
order in all of them (`tasks.finetuning.curriculum.without_curriculum`). What `icft` has over it is the curriculum's,
what it has over `lora` the general instructions'.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch.nn import functional
from trl import SFTTrainer

from orchestrator.recipes.tuning import Tuning
from tasks.finetuning.curriculum import TERMS, IcftSettings, Term, make_schedule, without_curriculum
from tasks.finetuning.difficulty import measure_difficulty
from tasks.finetuning.examples import IGNORED, Labelled
from tasks.finetuning.rows import Collator, pad_of, scheduled


class IcftTrainer(SFTTrainer):  # type: ignore[misc]
    """The schedule and the three terms of the loss; all else is trl's.

    The difficulties are measured here, with the model as it starts. A resumed run measures the same ones, and so has
    the stages and memories that it had. Without a curriculum nothing is measured.

    Args:
        general: instructions whose answers are to stay likely.
        tuning: the run's method and settings; see `orchestrator.recipes.tuning.settings`.
        more: SFTTrainer's arguments, with the model itself, not its name.
    """

    loss_is_scaled_for_ga = False  # a batch's loss is a mean: accumulation divides by the number of batches

    def __init__(self, examples: Sequence[Labelled], general: Sequence[Labelled], tuning: Tuning, **more: Any) -> None:
        pad = pad_of(more["processing_class"])
        settings, seed = tuning.settings["icft"], more["args"].seed
        self.term_weights = {term: settings[term] for term in TERMS}
        self.difficulty = [0.0] * len(examples)
        if tuning.method == "icft":
            model = more["model"].to(more["args"].device)
            self.difficulty = measure_difficulty(settings.get("difficulty", "loss"), examples, model, pad)
        self.stages = make_schedule(self.difficulty, len(general), IcftSettings.of(tuning.settings), seed)
        if tuning.method != "icft":
            self.stages = without_curriculum(self.stages, seed)
        rows = scheduled(examples, general, self.stages)
        super().__init__(train_dataset=rows, data_collator=Collator(pad), **more)

    def summary(self) -> dict[str, Any]:
        """Summarise the training for its result, as JSON.

        `stages`: how many `examples` each has, and their mean `difficulty`. `terms`: of each, the mean
        over a step's batches, before its weight, in nats a token, step by step.
        """
        logged = [entry for entry in self.state.log_history if "loss" in entry]
        stages = [
            {"examples": len(stage.examples), "difficulty": fmean(self.difficulty[index] for index in stage.examples)}
            for stage in self.stages
        ]
        return {"stages": stages, "terms": {term: [entry[term] for entry in logged] for term in TERMS}}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """Compute the weighted sum of the terms, which are logged unweighted."""
        terms = self.terms(model, inputs)
        for term, value in terms.items():
            self._metrics["train"][term].append(value.item())
        return sum((self.term_weights[term] * value for term, value in terms.items()), torch.zeros(()))

    def terms(self, model: Any, inputs: dict[str, Any]) -> dict[Term, torch.Tensor]:
        """Compute each term as a scalar, in nats a token; 0 where the batch has no row for it."""
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
