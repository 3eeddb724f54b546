"""Parents whose vocabularies differ, merged by mergekit's `tokenizer_source`: its bytes, and the parents' own answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config.load import load_config
from orchestrator.core.records import Decoding, Question, Serving
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_serving, served_sources
from orchestrator.recipes.recipe import Point, Recipe, Source, between, single
from tasks.merging.checkpoint import materialise
from tasks.merging.live import Merger
from tests.helpers.merges import live, stored
from tests.helpers.models import Models
from tests.helpers.vocabularies import with_tokens

Sweeps = Callable[..., Path]
MORE = {"a": [], "b": ["[PAD]", "<|turn|>"], "c": ["<|turn|>", "<|call|>"]}
"""Parent → the tokens that it has more than the demo's tokenizer."""


@dataclass(frozen=True)
class Pair:
    """Models whose vocabularies differ, and how they are served."""

    folders: dict[str, Path]
    sources: dict[str, Source]
    serving: Serving


@pytest.fixture(scope="session")
def folders(models: Models, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home, known = tmp_path_factory.mktemp("vocabularies"), models("llama", "float32")
    return {name: with_tokens(known[name], home / name, tokens) for name, tokens in MORE.items()}


@pytest.fixture
def pair(folders: dict[str, Path], sweep: Sweeps, tmp_path: Path) -> Callable[..., Pair]:
    def make(source: str, *names: str) -> Pair:
        parents = {name: {"model": str(folders[name])} for name in names}
        config = load_config(sweep(parents=parents, tokenizer_source=source, recipes=[]))
        files = resolve(config)
        serving = make_serving(config, files, tmp_path / "serving")
        return Pair(folders, served_sources(config, files, serving), serving)

    return make


def weighted(method: str, names: str, base: str | None, **parameters: Any) -> Callable[[dict[str, Source]], Recipe]:
    def make(sources: dict[str, Source]) -> Recipe:
        models = tuple((sources[name], {"weight": 0.3 + 0.1 * i}) for i, name in enumerate(names))
        return Recipe(method, models, sources[base] if base else None, parameters, "float32")

    return make


WAYS: dict[str, Callable[[dict[str, Source]], Recipe]] = {
    "passthrough": lambda sources: single(sources["a"], "float32", Point("parent")),
    "linear": lambda sources: between("linear", sources["a"], sources["b"], 0.3, {}, "float32"),
    "linear, other base": lambda sources: between("linear", sources["b"], sources["a"], 0.3, {}, "float32"),
    "linear, three parents without a base": weighted("linear", "abc", None),
    "slerp": lambda sources: between("slerp", sources["a"], sources["b"], 0.3, {}, "float32"),
    "nuslerp": weighted("nuslerp", "bc", None),
    "task_arithmetic": weighted("task_arithmetic", "bc", "a"),
    "ties": weighted("ties", "bc", "a"),
}


@pytest.mark.parametrize(
    ("source", "way"),
    [*(("union", way) for way in WAYS), *((name, way) for name in ("base", "b") for way in ("slerp", "ties"))],
)
def test_the_bytes_are_mergekits(source: str, way: str, pair: Callable[..., Pair], tmp_path: Path) -> None:
    made = pair(source, "a", "b", "c")
    wanted = WAYS[way](made.sources)
    expected = stored(materialise(wanted, tmp_path / "checkpoint", tmp_path))
    merged = live(wanted, tmp_path)
    assert set(merged) == set(expected)
    for name, tensor in merged.items():
        assert torch.equal(tensor.contiguous().view(torch.uint8), expected[name].view(torch.uint8)), name
    rows = {"union": 771, "base": 768, "b": 770}[source]
    assert merged["model.embed_tokens.weight"].shape[0] == merged["lm_head.weight"].shape[0] == rows


def test_a_pair_is_merged_as_if_its_own_file_said_union(pair: Callable[..., Pair], tmp_path: Path) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    made = pair("union", "a", "b")
    wanted = WAYS["linear"](made.sources)
    config = MergeConfiguration.model_validate({**wanted.to_mergekit(), "tokenizer_source": "union"})
    run_merge(config, str(tmp_path / "theirs"), MergeOptions(quiet=True))
    theirs, ours = stored(tmp_path / "theirs"), live(wanted, tmp_path)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_aligned_embeddings_are_kept_apart_by_the_models_beside_them(pair: Callable[..., Pair], tmp_path: Path) -> None:
    """What a parent has no row for is filled from those that it is merged with."""
    made, merger = pair("union", "a", "b", "c"), Merger(tmp_path)
    for way in ("linear", "linear, three parents without a base", "ties", "passthrough"):
        wanted = WAYS[way](made.sources)
        expected = stored(materialise(wanted, tmp_path / way, tmp_path))
        assert all(torch.equal(tensor, expected[name]) for name, tensor in merger.whole(wanted)), way


def logprobs(folder: Path, questions: list[Question]) -> list[float]:
    """Of each continuation, by transformers on the model as it is."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = []
    for question in questions:
        tokens, start = torch.tensor([[*question.context, *question.continuation]]), len(question.context)
        with torch.no_grad():
            logits = model(tokens).logits[0, start - 1 : -1].log_softmax(-1)
        found.append(float(logits.gather(1, tokens[0, start:, None]).sum()))
    return found


def texts(folder: Path, questions: list[Question]) -> list[str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )
    found = []
    for question in questions:
        assert question.decoding is not None
        made = model.generate(
            torch.tensor([question.context]),
            max_new_tokens=question.decoding.max_tokens,
            do_sample=False,
            eos_token_id=0,
        )[0, len(question.context) :]
        found.append(tokenizer.decode(made, skip_special_tokens=True))
    return found


PROMPTS = [tuple(range(20 + i, 50 + i)) for i in range(6)]
SCORED = [
    Question(prompt, continuation)
    for prompt in PROMPTS
    for continuation in ((30,), (31, 32, 33), tuple(range(60, 140)))
]
WRITTEN = [Question(prompt, decoding=Decoding(12, ())) for prompt in PROMPTS]


def test_both_ends_answer_as_that_parent_alone(
    pair: Callable[..., Pair], start_engine: Callable[..., Any], tmp_path: Path
) -> None:
    """The parent without the added tokens has no probability for them: mergekit's row of zeros would take some."""
    made = pair("union", "a", "b")
    ends = {name: single(made.sources[name], "float32", Point("parent")) for name in ("a", "b")}
    assert ends["a"].missing == [768, 769] and not ends["b"].missing
    boot = materialise(ends["a"], tmp_path / "boot", tmp_path)
    engine = start_engine(boot, "float32")
    engine.load(between("slerp", made.sources["a"], made.sources["b"], 0.4, {}, "float32"))
    for name in ("a", "b", "a"):
        engine.load(ends[name])
        answers = engine.answer([*SCORED, *WRITTEN])
        for answer, expected in zip(answers, logprobs(made.folders[name], SCORED), strict=False):
            assert answer.logprob == pytest.approx(expected, rel=1e-6, abs=2e-5)
        for answer, written in zip(answers[len(SCORED) :], texts(made.folders[name], WRITTEN), strict=True):
            # vLLM leaves out a character that is cut off at the end.
            assert answer.text == written.rstrip("\ufffd")
    zeros = zip(logprobs(made.folders["a"], SCORED), logprobs(boot, SCORED), strict=True)
    assert max(abs(alone - with_zeros) for alone, with_zeros in zeros) > 1e-3, "what the rows of zeros would change"
    assert engine.answer([Question(PROMPTS[0], (768,))])[0].logprob == -math.inf
