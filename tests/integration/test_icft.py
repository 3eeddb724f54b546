"""ICFT on a tiny real model: each term of the loss against a direct computation, and runs from end to end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.finetune import Method
from orchestrator.recipes.recipe import Recipe, Source
from orchestrator.recipes.tuning import Tuning
from tasks.finetuning.curriculum import TERMS
from tasks.finetuning.rows import WeightedExample
from tasks.finetuning.run import Run
from tasks.finetuning.train import make_trainer, train
from tests.helpers.paths import INSTRUCT

EXAMPLES = tuple(
    WeightedExample(f"What treats condition {number}?", f"Drug {number * 7} twice daily.", weight)
    for number, weight in enumerate([1.0, 0.5, 0.25, 1.0, 1.0, 0.75])
)
GENERAL = (WeightedExample("Write about the river.", "The river is old."), WeightedExample("Say yes.", "yes"))
ICFT = {
    "general": "digest", "stages": 3, "recent_rows": 1, "earlier_rows": 1, "long_memory": 512,
    "task": 1.0, "fine_tune": 1.0, "consistency": 1.0,
}  # fmt: skip


def make_run(
    model: Path,
    folder: Path,
    examples: tuple[WeightedExample, ...] = EXAMPLES,
    batch_size: int = 4,
    method: Method = "icft",
    **icft: Any,
) -> Run:
    from transformers import AutoTokenizer

    from tasks.finetuning.rows import encode

    tokenizer = AutoTokenizer.from_pretrained(INSTRUCT)
    learned, kept = (tuple(encode(each, tokenizer) for each in texts) for texts in (examples, GENERAL))
    source = Recipe("passthrough", ((Source("d", "a", str(model)), {}),), None, {}, "float32")
    given = {
        "steps": 6, "learning_rate": 5e-3, "batch_size": batch_size, "accumulation": 1, "optimizer": "adamw_torch",
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.0}, "icft": {**ICFT, **icft},
    }  # fmt: skip
    tuning = Tuning(source, "data", method, 3, given, "t", "a", len(examples), "all")
    return Run(tuning, model, folder, INSTRUCT, learned, "float32", 50, False, kept)


@pytest.fixture(scope="module")
def trainer(parents: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trainer whose adapter is no longer zero."""
    import torch

    made = make_trainer(make_run(parents["a"], tmp_path_factory.mktemp("trainer")))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return made


def encoded(example: WeightedExample, tokenizer: Any) -> dict[str, list[int]]:
    from tasks.finetuning.rows import encode, tokens

    return tokens(encode(example, tokenizer))


def batch(trainer: Any, *rows: tuple[str, int]) -> dict[str, Any]:
    """A batch of these rows: a term and the number of an example."""
    made = []
    for term, number in rows:
        example = (GENERAL if term == "consistency" else EXAMPLES)[number]
        tokens = encoded(example, trainer.processing_class)
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
    total, count = 0.0, 0
    for number in numbers:
        found, labels = log_probs(trainer.model, encoded(EXAMPLES[number], trainer.processing_class))
        total -= EXAMPLES[number].weight * sum(found[place, label].item() for place, label in enumerate(labels))
        count += len(labels)
    return total / count


def test_task_and_fine_tune_are_weighted_cross_entropies_of_their_own_completions(trainer: Any) -> None:
    found = trainer.terms(trainer.model, batch(trainer, ("task", 0), ("task", 1), ("fine_tune", 2), ("fine_tune", 5)))
    assert found["task"].item() == pytest.approx(cross_entropy(trainer, 0, 1), rel=1e-5)
    assert found["fine_tune"].item() == pytest.approx(cross_entropy(trainer, 2, 5), rel=1e-5)
    assert found["consistency"].item() == 0


def test_consistency_is_the_divergence_from_the_model_without_its_adapter(trainer: Any) -> None:
    total, count = 0.0, 0
    for example in GENERAL:
        tokens = encoded(example, trainer.processing_class)
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


def test_every_example_and_instruction_is_in_the_rows_as_it_is(trainer: Any) -> None:
    rows = [dict(row) for row in trainer.train_dataset]
    for term, members in (("task", EXAMPLES), ("consistency", GENERAL)):
        shown = {tuple(row["labels"]) for row in rows if row["term"] == TERMS.index(term)}
        assert shown == {tuple(encoded(each, trainer.processing_class)["labels"]) for each in members}
    replayed = {tuple(row["labels"]) for row in rows if row["term"] == TERMS.index("fine_tune")}
    assert replayed < {tuple(encoded(each, trainer.processing_class)["labels"]) for each in EXAMPLES}


def test_batches_come_in_the_schedules_order(trainer: Any) -> None:
    """The first stage has nothing to replay; the last one has."""
    terms = [[TERMS[number] for number in batch["term"].tolist()] for batch in trainer.get_train_dataloader()]
    asked = [[row.term for row in batch] for stage in trainer.stages for batch in stage.batches]
    assert terms == asked and len(terms) == 6
    assert "fine_tune" not in {*terms[0], *terms[1]} and "fine_tune" in terms[-1]


def test_the_result_has_every_term_of_every_step_and_the_stages(parents: dict[str, Path], tmp_path: Path) -> None:
    run = make_run(parents["a"], tmp_path / "run", consistency=2.0)
    train(run)
    result = json.loads((run.folder / "RESULT.json").read_text())
    told, terms = result["icft"], result["icft"]["terms"]
    assert len(result["losses"]) == 6 and set(terms) == set(TERMS)
    for step, loss in enumerate(result["losses"]):
        weighted = terms["task"][step] + terms["fine_tune"][step] + 2 * terms["consistency"][step]
        assert loss == pytest.approx(weighted, rel=1e-5)
    assert [stage["examples"] for stage in told["stages"]] == [2, 2, 2]
    assert [stage["difficulty"] for stage in told["stages"]] == sorted(s["difficulty"] for s in told["stages"])
    assert terms["fine_tune"][:2] == [0, 0], "nothing was learned before"
    assert all(value > 0 for value in terms["fine_tune"][2:])
    assert result["settings"]["icft"]["general"] == "digest"


def test_its_control_has_the_same_batches_with_the_examples_in_another_order(
    parents: dict[str, Path], tmp_path: Path
) -> None:
    ways: dict[str, dict[str, Any]] = {
        "icft": {},
        "rarity": {"difficulty": "rarity"},
        "lora_replay": {"method": "lora_replay"},
    }
    made = {name: make_trainer(make_run(parents["a"], tmp_path / name, **how)) for name, how in ways.items()}
    rows = {name: [dict(row) for row in trainer.train_dataset] for name, trainer in made.items()}
    terms = [[row["term"] for row in each] for each in rows.values()]
    assert terms[0] == terms[1] == terms[2]
    kept = TERMS.index("consistency")
    general = [[row for row in each if row["term"] == kept] for each in rows.values()]
    assert general[0] == general[2] and general[0], "the same general instructions at the same places"
    assert rows["icft"] != rows["lora_replay"] != rows["rarity"] != rows["icft"]
    train(make_run(parents["a"], tmp_path / "run", method="lora_replay"))
    result = json.loads((tmp_path / "run" / "RESULT.json").read_text())
    assert len(result["losses"]) == 6 and [stage["examples"] for stage in result["icft"]["stages"]] == [6]
    assert result["device_name"]


def test_difficulty_is_the_mean_loss_of_the_completion_with_its_end(parents: dict[str, Path]) -> None:
    import torch
    from transformers import AutoTokenizer

    from tasks.finetuning.rows import confidences, difficulties, encode, load, pad_of, tokens

    model, tokenizer = load(parents["a"]), AutoTokenizer.from_pretrained(INSTRUCT)
    examples = [encode(example, tokenizer) for example in EXAMPLES]
    assert all(each.response[-1] == tokenizer.eos_token_id for each in examples)
    found = difficulties(model, examples, pad_of(tokenizer))
    sure = confidences(model, examples, pad_of(tokenizer))
    for each, value, confidence in zip(examples, found, sure, strict=True):
        with torch.no_grad():
            probabilities, labels = log_probs(model, tokens(each))
        own = probabilities[torch.arange(len(labels)), labels]
        assert value == pytest.approx(-own.mean().item(), rel=1e-5)
        assert confidence == pytest.approx(own.exp().mean().item(), rel=1e-4)


def test_with_one_stage_and_no_replay_it_is_trls_lora(parents: dict[str, Path], tmp_path: Path) -> None:
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    examples = tuple(WeightedExample(example.prompt, example.completion) for example in EXAMPLES)
    alone: dict[str, Any] = {"stages": 1, "recent_rows": 0, "earlier_rows": 0}
    run = make_run(parents["a"], tmp_path / "run", examples, batch_size=3, **alone)
    made = make_trainer(run)
    arguments = SFTConfig(
        output_dir=str(tmp_path / "trl"), max_steps=6, per_device_train_batch_size=3, learning_rate=5e-3,
        lr_scheduler_type="linear", train_sampling_strategy="sequential", bf16=False, use_cpu=True, seed=3,
        gradient_checkpointing=False, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None,
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    plain = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(parents["a"]), args=arguments,
        train_dataset=made.train_dataset.remove_columns(["weight", "term"]), processing_class=made.processing_class,
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"),
    )  # fmt: skip
    plain.train()
    theirs = [entry["loss"] for entry in plain.state.log_history if "loss" in entry]
    train(run)
    ours = json.loads((run.folder / "RESULT.json").read_text())["losses"]
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_broken_model_has_no_difficulty(parents: dict[str, Path]) -> None:
    import torch
    from transformers import AutoTokenizer

    from tasks.finetuning.rows import difficulties, encode, load

    model, tokenizer = load(parents["a"]), AutoTokenizer.from_pretrained(INSTRUCT)
    with torch.no_grad():
        model.lm_head.weight[5] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        difficulties(model, [encode(EXAMPLES[0], tokenizer)], 0)


def test_a_model_labels_prompts_with_its_own_answers_and_its_confidence() -> None:
    from transformers import AutoTokenizer

    from examples.medquad.weak_labels import label_by_model
    from tasks.demo.instructions import held_out_exercises
    from tasks.finetuning.examples import Labelled
    from tasks.finetuning.rows import confidences, encode_prompt, load

    model, tokenizer = load(INSTRUCT), AutoTokenizer.from_pretrained(INSTRUCT)
    prompts = [exercise.prompt for exercise in held_out_exercises()[:10]]
    labels = label_by_model(model, tokenizer, prompts, 100)
    assert [label.prompt for label in labels] == prompts
    for label in labels[:3]:
        alone = model.generate(**tokenizer.apply_chat_template([{"role": "user", "content": label.prompt}],
                               add_generation_prompt=True, return_tensors="pt"), max_new_tokens=100, do_sample=False)  # fmt: skip
        read = encode_prompt(label.prompt, tokenizer)
        answer = alone[0, len(read) :].tolist()
        assert label.completion == tokenizer.decode(answer, skip_special_tokens=True)
        sure = confidences(model, [Labelled(read, tuple(answer))], 0)
        assert label.weight == pytest.approx(sure[0], rel=1e-4)
        assert 0.5 < label.weight <= 1, "the demo's parent is sure of what it was trained on"
    assert [label.weight for label in label_by_model(model, tokenizer, prompts[:2], 3)] == [0, 0], "cut off"
