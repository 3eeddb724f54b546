"""A generation task as lm-eval knows it.

Prompts are made from examples, texts are generated as in the paper, and scored by `tasks.generation.metrics`. The five
tasks are YAML files beside this one, in lm-eval's keys plus `origin` (where the data set is available) and `truncate`
(the side that an input loses where the prompt is too long). A user's own task has its prompt in the sweep file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, TemplateError
from jinja2.meta import find_undeclared_variables
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import apply_template

from orchestrator.config.generation import COMPOSITE, OPTED_OUT, Generation
from orchestrator.core.errors import UserError
from orchestrator.stats.aggregates import OfSums
from orchestrator.stats.estimates import Floats
from tasks.evaluation.requests import Cut, CuttableInstance, Edge
from tasks.generation.measured import Measured
from tasks.generation.metrics import (
    CORPUS_BLEU,
    FAITHFULNESS,
    METRICS,
    NEED_ENCODER,
    Values,
    composite_of,
    corpus_bleu,
)
from tasks.generation.own import own_examples
from tasks.generation.sources import FILES, Example, Examples, read_published

GENERATION = {
    "until": [],
    "do_sample": True,
    "temperature": 0.3,
    "top_p": 0.9,
    "repetition_penalty": 1.2,
    "max_gen_toks": 8192,
    "max_context_toks": 8192,
}
"""The paper's settings; a sweep changes them with gen_kwargs."""


class GenerationTask(ConfigurableTask):  # type: ignore[misc]
    """lm-eval's task over examples of inputs and reference texts.

    Args:
        settings: lm-eval's keys of the task (task, doc_to_text, metadata).
        truncate: the side of the input that is cut where a prompt is too long.
        examples: the data set's splits.
        generation: the sweep's settings; they choose the composite's metrics.
    """

    def __init__(self, settings: dict[str, Any], truncate: Edge, examples: Examples, generation: Generation) -> None:
        from datasets import Dataset

        settings = {**settings, "metadata": _asking(settings["metadata"])}
        self.settings, self.truncate = settings, truncate
        self.examples, self.generation = examples, generation
        self.has_encoder = generation.encoder is not None
        self.measured = Measured()
        data = {
            split: Dataset.from_list(_documents(part))
            for split, part in (("test", examples.test), ("validation", examples.validation))
            if part
        }
        super().__init__(
            config={
                **settings,
                "output_type": "generate_until",
                "custom_dataset": lambda **_: data,
                "test_split": "test",
                "num_fewshot": 0,
                "doc_to_target": "reference",
                "generation_kwargs": deepcopy(GENERATION),
                "process_results": self.score,
                "metric_list": [
                    {"metric": name, "aggregation": self._aggregation(name), "higher_is_better": True}
                    for name in METRICS
                ],
            }
        )

    def over(self, chosen: list[Example]) -> GenerationTask:
        """Return the same task over other examples than the test split's.

        It gives fine-tuning the prompts of serving.
        """
        return GenerationTask(self.settings, self.truncate, Examples(chosen, 0), self.generation)

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **kwargs: Any) -> CuttableInstance:
        """Make lm-eval's own request, with what may be cut from its prompt, and from which side."""
        made: Instance = super().construct_requests(doc, ctx, **kwargs)
        return CuttableInstance(
            request_type=made.request_type,
            doc=made.doc,
            arguments=made.arguments,
            idx=made.idx,
            metadata=made.metadata,
            cut=Cut(doc["input"], self.truncate),
        )

    def score(self, doc: dict[str, Any], results: list[str]) -> Values:
        """Compute every metric of one generated text against its references."""
        values = self.measured.values(results[0], doc["reference"], doc["input"])
        found = {name: values[name] for name in METRICS if name in values and name not in (COMPOSITE, OPTED_OUT)}
        found[FAITHFULNESS] = tuple(values[FAITHFULNESS])
        for name in (COMPOSITE, OPTED_OUT) if self.has_encoder else (OPTED_OUT,):
            found[name] = self._part(values, composite_of(name, self.generation.metrics))
        return found

    def _part(self, values: Values, names: Sequence[str]) -> Any:
        """A document's composite; where corpus BLEU is in it, what the document adds to it."""
        if CORPUS_BLEU not in names:
            return sum(values[name] for name in names) / len(names)
        return [*values[CORPUS_BLEU], sum(values[name] for name in names if name != CORPUS_BLEU), 1.0]

    def _aggregation(self, name: str) -> Any:
        """lm-eval's aggregation of a metric: its name there, or a function."""
        if name == FAITHFULNESS:
            return share
        if name == CORPUS_BLEU:
            return OfSums(corpus_bleu)
        names = composite_of(name, self.generation.metrics) if name in (COMPOSITE, OPTED_OUT) else ()
        return OfSums(partial(_mixed, len(names))) if CORPUS_BLEU in names else "mean"

    def check(self, where: str, metrics: list[str]) -> None:
        """Refuse metrics that cannot be computed.

        Raises:
            UserError: a metric needs BERTScore's encoder, and there is none.
        """
        for name in metrics:
            if name in NEED_ENCODER and not self.has_encoder:
                raise UserError(
                    f"{where}: {name} needs BERTScore's encoder, but generation.encoder is missing; name one (model, "
                    f"revision, layer), or leave BERTScore out with metric: {OPTED_OUT}, the mean of the other five"
                )

    def shown(self) -> list[str]:
        """List the metrics that are reported beside the objective's own."""
        hidden = (OPTED_OUT,) if self.has_encoder else NEED_ENCODER
        return [name for name in METRICS if name not in hidden]

    def notes(self) -> list[str]:
        """Write the sentences that a reader of the scores must know; documents are numbered from 0."""
        used = {instance.doc_id: instance.doc["id"] for instance in self.instances}
        again = [document for document, example in used.items() if example in self.examples.in_training]
        found = list(self.examples.remarks)
        if again:
            numbers = ", ".join(map(str, again[:20])) + (", …" if len(again) > 20 else "")
            found.append(
                f"{self.config.task}: {len(again)} of the {len(used)} examples are also in the training split "
                f"(case, spaces and punctuation aside): documents {numbers}."
            )
        if self.examples.incomplete:
            found.append(
                f"{self.config.task}: {self.examples.incomplete} test examples lack their input or reference and were "
                "left out."
            )
        if not self.has_encoder:
            found.append(
                f"{self.config.task}: BERTScore was left out (the sweep names no encoder): {OPTED_OUT} is not the "
                f"paper's {COMPOSITE}."
            )
        return found


def _asking(metadata: dict[str, Any]) -> dict[str, Any]:
    """Add to a task file's metadata that the question is the input, whatever the prompt adds to it."""
    return {**metadata, "mergefront": {**metadata.get("mergefront", {}), "question": "input"}}


def _documents(examples: list[Example]) -> list[dict[str, Any]]:
    """The examples as lm-eval's documents; where one has several references, `reference` is a list in all."""
    several = any(example.others for example in examples)
    found = []
    for example in examples:
        document = dataclasses.asdict(example)
        others, _ = document.pop("others"), document.pop("weight")
        found.append({**document, "reference": [example.reference, *others]} if several else document)
    return found


def _mixed(metrics: int, sums: Floats) -> float:
    """The composite of corpus BLEU and of the means of the other metrics, from the sums over the documents."""
    return (corpus_bleu(sums[:-2]) + float(sums[-2] / sums[-1])) / metrics


def share(items: list[tuple[int, int]]) -> float:
    """Compute the part of the checked statements that is supported; 1 where there was nothing to check.

    Args:
        items: (supported, checked) of each document.
    """
    checked = sum(count for _, count in items)
    return sum(supported for supported, _ in items) / checked if checked else 1.0


def _check_prompt(where: str, prompt: str) -> None:
    """Refuse a prompt that uses anything but the input: lm-eval would render the reference, too.

    Raises:
        UserError: it is no template, or names something else than the input.
    """
    try:
        names = find_undeclared_variables(Environment().parse(prompt)) - {"input"}
        if not names:
            apply_template(prompt, {"input": "a text"})
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}; write Jinja, with {{{{input}}}} where the input goes") from None
    if names:
        raise UserError(f"{where}: {min(names)!r} cannot stand in it; only {{{{input}}}} can")


def load_task(where: str, name: str, generation: Generation | None) -> GenerationTask:
    """Load one of the five tasks, or a task of the sweep file's own.

    Args:
        where: the sweep file's key of the task, for messages.

    Raises:
        UserError: its data is not named, does not exist, or is not in the data set's form; its prompt is no template.
    """
    generation = generation or Generation()
    if name in generation.own:
        own = generation.own[name]
        settings = {"task": name, "doc_to_text": own.prompt, "metadata": {"version": 1.0}}
        _check_prompt(f"generation.own.{name}.prompt", own.prompt)
        return GenerationTask(settings, own.truncate, own_examples(name, own), generation)
    settings = yaml.safe_load(FILES[name].read_text(encoding="utf-8"))
    origin, truncate = settings.pop("origin"), settings.pop("truncate")
    folder = generation.data.get(name)
    if folder is None:
        raise UserError(
            f"{where}: {name} needs its data set's folder: write it under generation.data.{name}; it is available from "
            f"{origin}"
        )
    return GenerationTask(settings, truncate, read_published(name, Path(folder), origin), generation)
