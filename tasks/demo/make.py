"""A program that trains the demo's parents: `python -m tasks.demo.make`.

A base first learns some of both halves, then each parent is trained from it on one half alone and
forgets much of the other. A common base is what makes parents mergeable: their weights stay close
enough to be mixed, and differ enough for the mixture to matter. Training is in float32; the files
that are shipped are in bfloat16. Seeds are fixed, yet another machine's arithmetic may end in
slightly different weights; the shipped files are therefore the reference, and this program shows
how they were made.
"""

import shutil
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tasks.demo import formulary, instructions

PARENTS = Path(__file__).parent / "parents"
DOCUMENT_END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 768
CONTEXT = 512
INSTRUCTION_TEXTS = 12_000
BATCH = 24
IGNORED = -100
BASE_STEPS = 500
BASE_RATE = 3e-3
PARENT_STEPS = {"clinical": 200, "instruct": 800}
PARENT_RATE = 1.5e-3

Example = tuple[list[int], list[int]]
"""Prompt tokens, which are only read, and completion tokens, which are learned."""


def clinical_texts() -> list[tuple[str, str]]:
    """Make (prompt, completion) pairs of the facts, as plain documents."""
    return [(prompt, text + DOCUMENT_END) for prompt, text in formulary.training_texts()]


def instruct_texts() -> list[tuple[str, str]]:
    """Make (prompt, completion) pairs of instructions and replies, as the chat template writes them."""
    turn = f"{TURN_START}user\n{{}}{TURN_END}\n{TURN_START}assistant\n"
    pairs = instructions.training_texts(INSTRUCTION_TEXTS)
    return [(turn.format(prompt), reply + TURN_END) for prompt, reply in pairs]


def make_tokenizer(texts: list[tuple[str, str]]) -> Tokenizer:
    """Train a byte-level BPE on both halves: small, and able to write any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[DOCUMENT_END, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((prompt + text for prompt, text in texts), trainer)
    return tokenizer


def make_model() -> LlamaForCausalLM:
    """Make an untrained Llama of about a million parameters."""
    torch.manual_seed(formulary.SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def encode(tokenizer: Tokenizer, texts: list[tuple[str, str]]) -> list[Example]:
    """Encode the texts as tokens."""
    return [(tokenizer.encode(a).ids, tokenizer.encode(b).ids) for a, b in texts]


def batch_of(examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Make padded inputs, and labels that leave the prompts out, both of shape (examples, tokens)."""
    width = max(len(prompt) + len(text) for prompt, text in examples)
    inputs = torch.zeros(len(examples), width, dtype=torch.long)
    labels = torch.full_like(inputs, IGNORED)
    for row, (prompt, text) in enumerate(examples):
        end = len(prompt) + len(text)
        inputs[row, :end] = torch.tensor(prompt + text)
        labels[row, len(prompt) : end] = torch.tensor(text)
    return inputs, labels


def train(model: LlamaForCausalLM, sources: dict[str, list[Example]], steps: int, rate: float) -> None:
    """Train `model` in place on a batch of each source a step; the rate rises, then falls.

    The sources' batches are not mixed: facts are short, and would be padded to a dialogue's length.
    """
    generator = torch.Generator().manual_seed(formulary.SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps, pct_start=0.05)
    model.train()
    for step in range(1, steps + 1):
        losses = {}
        for name, examples in sources.items():
            chosen = torch.randint(len(examples), (BATCH,), generator=generator).tolist()
            inputs, labels = batch_of([examples[index] for index in chosen])
            loss = model(input_ids=inputs, labels=labels).loss
            loss.backward()
            losses[name] = round(loss.item(), 3)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"  step {step}/{steps}, loss {losses}", flush=True)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, name: str, chat: bool) -> None:
    """Write one parent, complete or not at all."""
    end = TURN_END if chat else DOCUMENT_END
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        pad_token=DOCUMENT_END,
        additional_special_tokens=[TURN_START, TURN_END],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    end_id = tokenizer.token_to_id(end)
    shipped = LlamaForCausalLM(model.config).to(torch.bfloat16)
    shipped.load_state_dict(model.state_dict())
    for config in (shipped.config, shipped.generation_config):
        config.eos_token_id, config.pad_token_id = end_id, tokenizer.token_to_id(DOCUMENT_END)
    unfinished = PARENTS / f".{name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    shipped.save_pretrained(unfinished)
    fast.save_pretrained(unfinished)
    shutil.rmtree(PARENTS / name, ignore_errors=True)
    unfinished.rename(PARENTS / name)


def main() -> None:
    """Train and save the base and both parents."""
    torch.set_num_threads(1)  # more gain nothing at this size, and their number would change the sums
    started = time.monotonic()
    tokenizer = make_tokenizer(clinical_texts() + instruct_texts())
    sources = {
        "clinical": encode(tokenizer, clinical_texts()),
        "instruct": encode(tokenizer, instruct_texts()),
    }
    base = make_model()
    train(base, sources, BASE_STEPS, BASE_RATE)
    save(base, tokenizer, "base", chat=False)
    for name, steps in PARENT_STEPS.items():
        parent = make_model()
        parent.load_state_dict(base.state_dict())
        train(parent, {name: sources[name]}, steps, PARENT_RATE)
        save(parent, tokenizer, name, chat=name == "instruct")
        print(f"{name}: done after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
