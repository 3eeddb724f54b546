"""From a row of the leaderboard to a model folder that transformers and vLLM can load.

The folder has the checkpoint, the tokenizer, template and stop ids that it was served with, and a model card with its
parents and scores. mergekit writes the checkpoint; it is then compared, tensor by tensor, with what live merging makes
of the recipe on a CPU, which is what answered the questions (on a GPU, but for the last bit of the methods that merge
there).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from orchestrator.core.errors import UserError
from orchestrator.core.files import check_new
from orchestrator.core.records import RecipeStatus
from orchestrator.models.fetch import fetch
from orchestrator.models.headers import read_headers, read_tensor
from orchestrator.models.resolve import open_model
from orchestrator.models.serving import tokenizer_of
from orchestrator.models.tokenizer import TOKENIZER_FILES, open_tokenizer
from orchestrator.recipes.recipe import Recipe, Source
from orchestrator.report.words import why
from orchestrator.results.board import Board, Row
from orchestrator.stages.open import Sweep
from tasks.merging.live import Merger, write_checkpoint
from tasks.merging.plain import appearing, make_plain


def promote(sweep: Sweep, board: Board, name: str, folder: Path) -> Row:
    """Write a recipe's checkpoint with the sweep's tokenizer, template, stop ids and a model card to `folder`.

    Args:
        name: as for `Board.find`.
        folder: must not exist yet; it appears when everything in it is written.

    Returns:
        The recipe's row.

    Raises:
        UserError: the folder exists, the recipe has no scores, a parent is gone or has changed, or the checkpoint is
            not what was served.
    """
    row = board.find(name)
    if row.status != RecipeStatus.SCORED:
        raise UserError(
            f"{row.recipe.label} is {row.status} and has no scores{why(row)}; promote a recipe that is scored"
        )
    check_new(folder)
    check_parents(sweep, row.recipe)
    with tempfile.TemporaryDirectory() as scratch, appearing(folder) as temporary:
        assert temporary is not None, "the folder does not exist yet"
        checkpoint = write_checkpoint(row.recipe, temporary / "checkpoint", Path(scratch))
        check_served(row.recipe, checkpoint, Path(scratch))
        # mergekit writes the experts of a layer as one tensor, which vLLM does not load.
        make_plain(row.recipe.label, checkpoint, temporary)
        add_serving(sweep, row.recipe, temporary)
        (temporary / "mergekit_config.yml").write_text(row.recipe.to_yaml(), encoding="utf-8")
        (temporary / "README.md").write_text(card(sweep, board, row), encoding="utf-8")
    return row


def check_parents(sweep: Sweep, recipe: Recipe) -> None:
    """Check that the weights of the recipe's parents, at the revisions that were served, have not changed.

    Raises:
        UserError: a parent's digest is another one.
    """
    config = {**sweep.config.parents, **sweep.config.candidates}
    for source, _ in recipe.models:
        if source.name not in config:
            _check_trained(source)
            continue
        parent = config[source.name].model_copy(update={"revision": source.revision})
        digest = open_model("parents", source.name, parent).source.digest
        if digest != source.digest:
            raise UserError(
                f"parents.{source.name}: the weights in {source.model} are not those that were served (digest {digest} "
                f"instead of {source.digest}); restore them, or run the sweep again"
            )


def _check_trained(source: Source) -> None:
    """Check that the weights of a fine-tuned checkpoint are still there."""
    if not Path(source.model).is_dir():
        raise UserError(
            f"{source.name}: its weights were not kept ({source.model} is gone): a search keeps its front's, "
            "and finetune.keep: true those of every run"
        )


def check_served(recipe: Recipe, checkpoint: Path, scratch: Path) -> None:
    """Check that every tensor of the checkpoint is, bit by bit, what live merging makes.

    Raises:
        UserError: a tensor differs.
    """
    stored = read_headers(recipe.label, checkpoint)
    for name, tensor in Merger(scratch).whole(recipe):
        if not torch.equal(read_tensor(checkpoint / stored[name].file, name), tensor):
            raise UserError(
                f"{recipe.label}: the tensor {name} that mergekit wrote is not the one that was served; has mergekit "
                "or torch changed since? Run the sweep again with the versions that are installed now"
            )


def add_serving(sweep: Sweep, recipe: Recipe, folder: Path) -> None:
    """Add the tokenizer and template that every recipe was evaluated with, and the stop ids of all parents."""
    for name in TOKENIZER_FILES:
        if (Path(sweep.serving.folder) / name).exists():
            shutil.copyfile(Path(sweep.serving.folder) / name, folder / name)
    stops: Any = list(sweep.serving.stop_token_ids)
    own: dict[str, Any] = {"eos_token_id": stops[0] if len(stops) == 1 else stops}
    generation = {**own, **({"suppress_tokens": recipe.missing} if recipe.missing else {})}
    if sweep.config.tokenizer_source is not None:
        # The config is that of one parent, with its ids.
        tokenizer = open_tokenizer(Path(sweep.serving.folder))
        own |= {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for file, content in (("config.json", {**config, **own}), ("generation_config.json", generation)):
        (folder / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def card(sweep: Sweep, board: Board, row: Row) -> str:
    """Write the text of the model card: parents, licences, method, scores with their standard errors."""
    sources = _parents(sweep, row.recipe)
    licences = {source.name: licence(source) for source in sources}
    front = {
        "base_model": [source.model if "/" not in source.model[:1] else source.name for source in sources],
        "library_name": "transformers",
        "tags": ["mergekit", "merge", "mergefront"],
    }
    lines = ["---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "", f"# {row.recipe.label}", ""]
    kind = "A merge" if all(source in sources for source, _ in row.recipe.models) else "A fine-tuned merge"
    lines += [f"{kind} (`{row.recipe.method}`, {row.recipe.dtype}) found by mergefront, recipe `{row.recipe.id}`.", ""]
    lines += ["| parent | licence as its card states it |", "|---|---|"]
    lines += [f"| {source.name} | {licences[source.name]} |" for source in sources]
    lines += [
        "",
        "The licences of all parents apply.",
        "",
        "| objective | score | standard error | tasks |",
        "|---|---|---|---|",
    ]
    for name, score in row.scores.items():
        tasks = ", ".join(task.task for task in score.tasks)
        error = "not known" if score.se is None else f"{score.se:.4f}"
        lines.append(f"| {name} | {score.value:.4f} | {error} | {tasks} |")
    place = "on the front" if row.on_front else "near the front" if row.near_front else "off the front"
    lines += [
        "",
        f"Among {len(board.rows)} recipes it is {place}. Served by {board.profile.engine} in {board.profile.dtype}",
    ]
    tokenizer, stops = tokenizer_of(sweep.config, sweep.serving), list(sweep.serving.stop_token_ids)
    lines += [f"with the tokenizer of {tokenizer}; stop ids {stops}.", ""]
    if row.recipe.missing:
        count = len(row.recipe.missing)
        lines += [f"It was trained without {count:,} of the tokens, which got no probability (`suppress_tokens`).", ""]
    lines += ["```yaml", row.recipe.to_yaml().strip(), "```", ""]
    return "\n".join(lines)


def _parents(sweep: Sweep, recipe: Recipe) -> list[Source]:
    """The models whose weights a recipe has; of a fine-tuned checkpoint, all parents that it may have them of."""
    sources = [source for source, _ in recipe.models]
    known = {source.id for source in sweep.sources.values()}
    return sources if all(source.id in known for source in sources) else list(sweep.sources.values())


def licence(source: Source) -> str:
    """Read a parent's licence from the front matter of its own model card; `not stated` where it has none."""
    folder, _ = fetch(source.name, source.model, source.revision, weights=True)
    readme = folder / "README.md"
    parts = readme.read_text(encoding="utf-8").split("---") if readme.exists() else []
    try:
        front = yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0].strip() else None
    except yaml.YAMLError:
        return "its card cannot be read"
    return str(front["license"]) if isinstance(front, dict) and front.get("license") else "not stated"
