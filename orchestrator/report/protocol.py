"""What differs between how published figures were made and how this run's were, setting by setting.

This run's settings are read from its sweep file and its questions, never written down a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.finetune import FEW_SHOT_STEPS, STEPS, Finetune
from orchestrator.config.objectives import Objective
from orchestrator.config.published import Evaluation, Examples
from orchestrator.core.text import listed
from orchestrator.report.words import encoder_words
from orchestrator.results.board import Board, FinetunedRow, TaskSummary

NOT_SAID = "not said"
TRUNCATION = "a part of the input; instruction, question and response stay whole"
LOSS = "the tokens of the response"


@dataclass(frozen=True)
class Differing:
    """One setting that differs, or may differ because one side does not say it."""

    setting: str
    there: str
    here: str

    @property
    def name(self) -> str:
        """The setting for a row of a table: what the source does not say is marked."""
        return f"{self.setting} ({NOT_SAID})" if self.there == NOT_SAID else self.setting


def differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[Differing]:
    """Compare the settings that both sides have.

    Args:
        there: setting → value, None where the source does not say it.
        here: setting → value.
    """
    return [
        Differing(key, _text(value), _text(here[key]))
        for key, value in there.items()
        if key in here and value != here[key]
    ]


def said(protocol: Evaluation, measure: str, examples: Examples = 0) -> dict[str, Any]:
    """Return what a file says of how a figure was made, None for what its source does not say.

    Args:
        measure: the objective or task, by its name there.
        examples: number of training examples; at 0, nothing was trained.
    """
    keys = [key for key in type(protocol).model_fields if key in protocol.model_fields_set]
    found = {key: getattr(protocol, key) for key in keys if key in Evaluation.model_fields or examples != 0}
    parts = {"tasks": measure, "min_steps": "all" if examples == "all" else "few"}
    for key, part in parts.items():
        if (value := (found.get(key) or {}).get(part)) is None:
            found.pop(key, None)
        else:
            found[key] = sorted(value) if key == "tasks" else value
    return found


def evaluated(board: Board, objective: Objective, tasks: Sequence[TaskSummary]) -> dict[str, Any]:
    """Return how this run evaluates an objective, by the keys of `Evaluation`.

    Args:
        tasks: those of the objective.
    """
    found: dict[str, Any] = {
        "tasks": sorted(task.task for task in tasks),
        "num_fewshot": "each task file's" if objective.num_fewshot is None else objective.num_fewshot,
        "apply_chat_template": objective.apply_chat_template,
        "metric": listed(dict.fromkeys(metric for task in tasks for metric in task.metrics)),
    }
    if len(tasks) > 1:
        found["average"] = objective.average
    encoder = board.config.generation and board.config.generation.encoder
    if decoding := next((task.decoding for task in tasks if task.decoding), None):
        found["composite"] = listed(dict.fromkeys(task.composite for task in tasks))
        found["encoder"] = encoder_words(encoder) if encoder else "none"
        found |= {key: getattr(decoding, key) for key in ("temperature", "top_p", "repetition_penalty")}
        found["max_gen_toks"] = decoding.max_tokens
    return found


def only_here(objective: Objective) -> Iterator[Differing]:
    """Yield the settings of this run that choose some of the questions, or add to their prompts."""
    for key in ("limit", "split", "system_prompt"):
        if (value := getattr(objective, key)) is not None:
            yield Differing(key, NOT_SAID, _text(value if key != "system_prompt" else True))


def trained(board: Board, finetune: Finetune, runs: Sequence[FinetunedRow]) -> dict[str, Any]:
    """Return how this run trains, by the keys of `Training`.

    Args:
        runs: the runs behind one score, at least one.
    """
    tuning, results = runs[0].tuning, [run.result for run in runs if run.result]
    least = STEPS if tuning.budget == "all" else FEW_SHOT_STEPS
    found = {
        "method": tuning.method,
        "epochs": finetune.epochs,
        "min_steps": finetune.min_steps or least,
        "learning_rate": finetune.learning_rate,
        "batch": finetune.batch_size * finetune.accumulation,
        "max_length": finetune.max_length,
        "truncation": TRUNCATION,
        "loss": LOSS,
        "seeds": len(runs),
    }
    if results:
        device = results[0].get("device_name") or board.config.workers.accelerator_type or results[0]["device"]
        found["hardware"] = f"{results[0]['processes']}x {device}"
    return found


def _text(value: Any) -> str:
    if value is None:
        return NOT_SAID
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return listed(value, most=20)
    return f"{value:g}" if isinstance(value, float) else str(value)
