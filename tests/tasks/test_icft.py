"""ICFT on a tiny real model: each term of the loss against a direct computation, and runs from end to end."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import UserError
from tasks.curriculum import TERMS, Example, IcftSettings
from tests.conftest import DEMO, ROOT

INSTRUCT = DEMO / "parents" / "instruct"
EXAMPLES = tuple(
    Example(f"What treats condition {number}?", f"Drug {number * 7} twice daily.", weight)
    for number, weight in enumerate([1.0, 0.5, 0.25, 1.0, 1.0, 0.75])
)
GENERAL = (Example("Write about the river.", "The river is old."), Example("Say yes.", "yes"))
SETTINGS = IcftSettings(steps=6, stages=3, accumulate=1, learning_rate=5e-3, rank=4, save_steps=2)


@pytest.fixture(scope="module")
def trained(parents: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One finished run."""
    return run(parents["a"], tmp_path_factory.mktemp("icft") / "out")


def run(model: Path, out: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    from transformers import AutoTokenizer

    from tasks.icft import train_icft
    from tasks.rows import Data

    examples, general = changes.pop("examples", EXAMPLES), changes.pop("general", GENERAL)
    data = Data.encode(examples, general, AutoTokenizer.from_pretrained(INSTRUCT))
    return out, train_icft(model, INSTRUCT, data, dataclasses.replace(SETTINGS, **changes), out, seed=3)


@pytest.fixture(scope="module")
def trainer(parents: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trainer whose adapter is no longer zero."""
    import torch
    from transformers import AutoTokenizer

    from tasks.curriculum import make_schedule
    from tasks.icft import make_trainer
    from tasks.rows import Data, load

    tokenizer = AutoTokenizer.from_pretrained(INSTRUCT)
    data = Data.encode(EXAMPLES, GENERAL, tokenizer)
    stages = make_schedule([1.0] * len(EXAMPLES), len(GENERAL), SETTINGS, seed=0)
    work = tmp_path_factory.mktemp("trainer")
    made = make_trainer(load(parents["a"]), tokenizer, data, stages, SETTINGS, work, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return made


def batch(trainer: Any, *rows: tuple[str, int]) -> dict[str, Any]:
    """A batch of these rows: a term and the number of an example."""
    from tasks.rows import encode

    made = []
    for term, number in rows:
        example = (GENERAL if term == "consistency" else EXAMPLES)[number]
        tokens = encode(example, trainer.processing_class)
        made.append({**tokens, "weight": example.weight, "term": TERMS.index(term)})
    return dict(trainer.data_collator(made))


def log_probs(model: Any, tokens: dict[str, list[int]]) -> Any:
    """The model's log-probabilities at the completion's places, one example at a time."""
    import torch

    labels = torch.tensor(tokens["labels"])[1:]
    logits = model(input_ids=torch.tensor([tokens["input_ids"]])).logits[0, :-1]
    return logits.log_softmax(-1)[labels != -100], labels[labels != -100]


def cross_entropy(trainer: Any, *numbers: int) -> float:
    """Weighted and summed over the tokens of these examples, then divided by their number."""
    from tasks.rows import encode

    total, count = 0.0, 0
    for number in numbers:
        found, labels = log_probs(trainer.model, encode(EXAMPLES[number], trainer.processing_class))
        total -= EXAMPLES[number].weight * sum(found[place, label].item() for place, label in enumerate(labels))
        count += len(labels)
    return total / count


def test_task_and_fine_tune_are_weighted_cross_entropies_of_their_own_completions(trainer: Any) -> None:
    found = trainer.terms(trainer.model, batch(trainer, ("task", 0), ("task", 1), ("fine_tune", 2), ("fine_tune", 5)))
    assert found["task"].item() == pytest.approx(cross_entropy(trainer, 0, 1), rel=1e-5)
    assert found["fine_tune"].item() == pytest.approx(cross_entropy(trainer, 2, 5), rel=1e-5)
    assert found["consistency"].item() == 0


def test_consistency_is_the_divergence_from_the_model_without_its_adapter(trainer: Any) -> None:
    from tasks.rows import encode

    total, count = 0.0, 0
    for example in GENERAL:
        tokens = encode(example, trainer.processing_class)
        tuned, labels = log_probs(trainer.model, tokens)
        with trainer.model.disable_adapter():
            start, _ = log_probs(trainer.model, tokens)
        total += (start.exp() * (start - tuned)).sum().item()
        count += len(labels)
    found = trainer.terms(trainer.model, batch(trainer, ("task", 0), ("consistency", 0), ("consistency", 1)))
    assert total / count > 0.01, "the adapter does something"
    assert found["consistency"].item() == pytest.approx(total / count, rel=1e-4)
    assert found["task"].item() == pytest.approx(cross_entropy(trainer, 0), rel=1e-5)
    assert found["fine_tune"].item() == 0


def test_loss_is_the_weighted_sum_of_the_terms(trainer: Any) -> None:
    inputs = batch(trainer, ("task", 0), ("fine_tune", 1), ("consistency", 0))
    terms = {term: value.item() for term, value in trainer.terms(trainer.model, inputs).items()}
    plain, trainer.term_weights = trainer.term_weights, {"task": 1.0, "fine_tune": 0.5, "consistency": 2.0}
    loss = trainer.compute_loss(trainer.model, inputs).item()
    trainer.term_weights = plain
    assert loss == pytest.approx(terms["task"] + 0.5 * terms["fine_tune"] + 2 * terms["consistency"], rel=1e-5)


def test_gradients_reach_the_adapter_alone_and_through_each_term(trainer: Any) -> None:
    for term in TERMS:
        trainer.model.zero_grad()
        trainer.terms(trainer.model, batch(trainer, ("task", 0), (term, 1)))[term].backward()
        learned = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
        assert learned and all("lora_" in name for name in learned)
        assert sum(grad.abs().sum().item() for grad in learned.values()) > 0


def test_a_run_logs_every_term_and_writes_a_checkpoint_with_the_adapter_in_it(
    trained: tuple[Path, dict[str, Any]], parents: dict[str, Path]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    out, metrics = trained
    assert [entry["step"] for entry in metrics["history"]] == [1, 2, 3, 4, 5, 6]
    for entry in metrics["history"]:
        assert entry["loss"] == pytest.approx(sum(entry[term] for term in TERMS), rel=1e-5)
    assert [stage["examples"] for stage in metrics["stages"]] == [2, 2, 2]
    assert [stage["difficulty"] for stage in metrics["stages"]] == sorted(s["difficulty"] for s in metrics["stages"])
    assert all(entry["fine_tune"] == 0 for entry in metrics["history"][:2]), "nothing was learned before"
    assert all(entry["fine_tune"] > 0 for entry in metrics["history"][2:])
    tuned, start = (AutoModelForCausalLM.from_pretrained(folder) for folder in (out, parents["a"]))
    changed = [name for name, value in tuned.state_dict().items() if not torch.equal(value, start.state_dict()[name])]
    assert changed and all("proj" in name for name in changed)
    assert not out.with_name(f".{out.name}.icft").exists()


def test_the_checkpoint_is_the_trained_model(trained: tuple[Path, dict[str, Any]]) -> None:
    """It knows the examples better than the model that it started from."""
    from transformers import AutoTokenizer

    from tasks.rows import difficulties, encode, load, pad_of

    out, metrics = trained
    tokenizer = AutoTokenizer.from_pretrained(out)
    tokens = [encode(example, tokenizer) for example in EXAMPLES]
    after = difficulties(load(out), tokens, pad_of(tokenizer))
    before = sum(stage["examples"] * stage["difficulty"] for stage in metrics["stages"]) / len(EXAMPLES)
    assert sum(after) / len(after) < before - 0.1


def test_difficulty_is_the_mean_loss_of_the_completion_with_its_end(parents: dict[str, Path]) -> None:
    import torch
    from transformers import AutoTokenizer

    from tasks.rows import confidences, difficulties, encode, load, pad_of

    model, tokenizer = load(parents["a"]), AutoTokenizer.from_pretrained(INSTRUCT)
    tokens = [encode(example, tokenizer) for example in EXAMPLES]
    assert all(each["labels"][-1] == tokenizer.eos_token_id for each in tokens)
    found = difficulties(model, tokens, pad_of(tokenizer))
    sure = confidences(model, tokens, pad_of(tokenizer))
    for each, value, confidence in zip(tokens, found, sure, strict=True):
        with torch.no_grad():
            probabilities, labels = log_probs(model, each)
        own = probabilities[torch.arange(len(labels)), labels]
        assert value == pytest.approx(-own.mean().item(), rel=1e-5)
        assert confidence == pytest.approx(own.exp().mean().item(), rel=1e-4)


def test_with_one_stage_and_no_replay_it_is_trls_lora(parents: dict[str, Path], tmp_path: Path) -> None:
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from tasks.curriculum import make_schedule
    from tasks.rows import Data, difficulties, load

    alone = {"stages": 1, "task_rows": 3, "recent_rows": 0, "earlier_rows": 0}
    examples = tuple(dataclasses.replace(example, weight=1.0) for example in EXAMPLES)
    _, metrics = run(parents["a"], tmp_path / "out", examples=examples, **alone)
    tokenizer = AutoTokenizer.from_pretrained(INSTRUCT)
    settings = dataclasses.replace(SETTINGS, **alone)
    data = Data.encode(examples, GENERAL, tokenizer)
    model = load(parents["a"])
    difficulty = difficulties(model, data.examples, data.pad)
    rows = data.rows(make_schedule(difficulty, len(GENERAL), settings, seed=3))
    arguments = SFTConfig(
        output_dir=str(tmp_path / "trl"), max_steps=6, per_device_train_batch_size=3, learning_rate=5e-3,
        lr_scheduler_type="linear", train_sampling_strategy="sequential", bf16=False, use_cpu=True, seed=3,
        gradient_checkpointing=False, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None,
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    plain = SFTTrainer(
        model=model, args=arguments, train_dataset=rows.remove_columns(["weight", "term"]),
        processing_class=tokenizer, peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"),
    )  # fmt: skip
    plain.train()
    theirs = [entry["loss"] for entry in plain.state.log_history if "loss" in entry]
    assert [entry["loss"] for entry in metrics["history"]] == pytest.approx(theirs, rel=1e-5)


KILLED = """
import sys
from pathlib import Path
from tests.tasks.test_icft import run
run(Path(sys.argv[1]), Path(sys.argv[2]), steps=20, save_steps=5)
"""


def test_a_killed_run_goes_on_and_ends_at_the_same_loss(parents: dict[str, Path], tmp_path: Path) -> None:
    """Killed at whatever it does some steps in."""
    import torch
    from safetensors.torch import load_file

    from tasks.icft import last_checkpoint

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(parents["a"]), str(tmp_path / "killed")], env=environment
    )
    work = tmp_path / ".killed.icft"
    while not list(work.glob("checkpoint-*/COMPLETE")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed").exists()
    state = Path(last_checkpoint(work) or "") / "trainer_state.json"
    told = json.loads(state.read_text())
    told["log_history"][0]["loss"] = -1
    state.write_text(json.dumps(told))
    _, whole = run(parents["a"], tmp_path / "whole", steps=20, save_steps=5)
    _, resumed = run(parents["a"], tmp_path / "killed", steps=20, save_steps=5)
    losses, expected = ([entry["loss"] for entry in each["history"]] for each in (resumed, whole))
    assert losses[0] == -1, "it did not begin anew"
    assert losses[1:] == pytest.approx(expected[1:], rel=1e-5)
    tuned, same = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole"))
    assert all(torch.allclose(tuned[name], same[name], rtol=1e-4, atol=1e-6) for name in same)


def test_a_checkpoint_without_its_marker_is_not_gone_on_from(tmp_path: Path) -> None:
    from tasks.icft import last_checkpoint

    assert last_checkpoint(tmp_path) is None
    for step, complete in ((9, True), (10, True), (11, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{step}" / "COMPLETE").touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_a_finished_run_is_not_repeated(trained: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = trained
    assert run(Path("/nowhere"), out)[1] == metrics == json.loads((out / "icft.json").read_text())


@pytest.mark.parametrize(("missing", "counts"), [("examples", "0 and 2"), ("general", "6 and 0")])
def test_nothing_to_learn_or_to_keep_is_refused(
    parents: dict[str, Path], tmp_path: Path, missing: str, counts: str
) -> None:
    with pytest.raises(UserError, match=f"needs examples and general instructions: there are {counts}"):
        run(parents["a"], tmp_path / "out", **{missing: ()})


def test_a_run_does_not_go_on_with_other_examples(parents: dict[str, Path], tmp_path: Path) -> None:
    work = tmp_path / ".out.icft"
    (work / "checkpoint-2").mkdir(parents=True)
    (work / "checkpoint-2" / "COMPLETE").touch()
    (work / "begun.json").write_text(json.dumps({"key": "other", "difficulty": [1.0] * 6}))
    with pytest.raises(UserError, match="holds a run with another model, examples, settings or seed"):
        run(parents["a"], tmp_path / "out")


def test_what_was_refused_can_be_run_once_it_is_mended(parents: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="raise the steps to 3"):
        run(parents["a"], tmp_path / "out", steps=2)
    assert len(run(parents["a"], tmp_path / "out", steps=3)[1]["history"]) == 3


def test_a_broken_model_has_no_difficulty(parents: dict[str, Path]) -> None:
    import torch
    from transformers import AutoTokenizer

    from tasks.rows import difficulties, encode, load

    model, tokenizer = load(parents["a"]), AutoTokenizer.from_pretrained(INSTRUCT)
    with torch.no_grad():
        model.lm_head.weight[5] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        difficulties(model, [encode(EXAMPLES[0], tokenizer)], 0)


def test_a_model_labels_prompts_with_its_own_answers_and_its_confidence() -> None:
    from transformers import AutoTokenizer

    from tasks.demo.instructions import asked
    from tasks.rows import IGNORED, confidences, encode_prompt, load
    from tasks.weak_labels import label_by_model

    model, tokenizer = load(INSTRUCT), AutoTokenizer.from_pretrained(INSTRUCT)
    prompts = [exercise.prompt for exercise in asked()[:10]]
    labels = label_by_model(model, tokenizer, prompts, 100)
    assert [label.prompt for label in labels] == prompts
    for label in labels[:3]:
        alone = model.generate(**tokenizer.apply_chat_template([{"role": "user", "content": label.prompt}],
                               add_generation_prompt=True, return_tensors="pt"), max_new_tokens=100, do_sample=False)  # fmt: skip
        read = encode_prompt(label.prompt, tokenizer)
        answer = alone[0, len(read) :].tolist()
        assert label.completion == tokenizer.decode(answer, skip_special_tokens=True)
        tokens = {"input_ids": read + answer, "labels": [IGNORED] * len(read) + answer}
        assert label.weight == pytest.approx(confidences(model, [tokens], 0)[0], rel=1e-4)
        assert 0.5 < label.weight <= 1, "the demo's parent is sure of what it was trained on"
    assert [label.weight for label in label_by_model(model, tokenizer, prompts[:2], 3)] == [0, 0], "cut off"
