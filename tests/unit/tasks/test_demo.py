"""The demo's parents are what the demo says they are, and lm-eval can ask its questions."""

from itertools import islice
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM

from tasks.demo import formulary, instructions
from tests.helpers.paths import DEMO

PARENTS = DEMO / "parents"
SLERP_THRESHOLD = 0.9995
"""Where mergekit's slerp turns linear."""


def test_parents_are_small() -> None:
    assert sum(file.stat().st_size for file in PARENTS.rglob("*.safetensors")) <= 10_000_000


@pytest.mark.parametrize("name", ["base", "clinical", "instruct"])
def test_a_parent_loads_and_stops(name: str) -> None:
    model = LlamaForCausalLM.from_pretrained(PARENTS / name)
    tokenizer = AutoTokenizer.from_pretrained(PARENTS / name)
    assert model.dtype == torch.bfloat16
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_only_the_instruct_parent_chats_and_the_two_stop_differently() -> None:
    clinical, instruct = (AutoTokenizer.from_pretrained(PARENTS / n) for n in ("clinical", "instruct"))
    assert clinical.get_vocab() == instruct.get_vocab()
    assert clinical.chat_template is None and clinical.eos_token == "<|endoftext|>"
    assert instruct.chat_template and instruct.eos_token == "<|im_end|>"


def test_the_tokenizer_can_write_anything() -> None:
    tokenizer = AutoTokenizer.from_pretrained(PARENTS / "instruct")
    text = "".join(map(chr, range(32, 127))) + "\n  two  spaces , é µg ."
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_training_writes_chats_as_the_template_does() -> None:
    from tasks.demo.make import instruct_texts

    tokenizer = AutoTokenizer.from_pretrained(PARENTS / "instruct")
    (asked, _), (prompt, _) = instructions.training_texts(1)[0], instruct_texts()[0]
    message = [{"role": "user", "content": asked}]
    assert prompt == tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


def test_slerp_differs_from_linear_on_most_tensors() -> None:
    clinical, instruct = (load_file(PARENTS / n / "model.safetensors") for n in ("clinical", "instruct"))
    cosines = [
        torch.nn.functional.cosine_similarity(a.float().flatten(), instruct[name].float().flatten(), 0)
        for name, a in clinical.items()
    ]
    assert sum(abs(float(c)) <= SLERP_THRESHOLD for c in cosines) >= len(cosines) / 2


def test_the_formulary_is_the_one_that_was_learned() -> None:
    first = formulary.documents()[0]
    assert (first["question"], first["choices"][first["answer"]]) == (
        "Question: Which class does Pritafen belong to?\nAnswer:",
        "somnergic agonists",
    )
    assert len({fact.drug for fact in formulary.facts()}) == formulary.DRUG_COUNT


def test_no_asked_pairing_is_trained_on() -> None:
    asked = {each.prompt for each in instructions.held_out_exercises()}
    assert asked.isdisjoint(prompt for prompt, _ in instructions.training_texts(12_000))


def test_model_replies_satisfy_the_checkers() -> None:
    ifeval = pytest.importorskip("lm_eval.tasks.ifeval.utils")
    for each, document in zip(instructions.held_out_exercises(), instructions.documents(), strict=True):
        assert ifeval.process_results(document, [each.reply])["prompt_level_strict_acc"], each


def test_lm_eval_loads_both_tasks_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)
    manager = TaskManager(include_path=str(DEMO / "lm_eval"), include_defaults=False)
    tasks = manager.load(["demo_formulary", "demo_instructions"])["tasks"]
    sizes = {name: len(list(task.test_docs())) for name, task in tasks.items()}
    assert sizes == {
        "demo_formulary": formulary.DRUG_COUNT * len(formulary.ATTRIBUTES),
        "demo_instructions": instructions.PROMPT_COUNT,
    }


def test_exercises_are_the_same_every_time() -> None:
    twice = [list(islice(instructions.exercises(Random(3)), 20)) for _ in range(2)]
    assert twice[0] == twice[1]
