"""A LoRA adapter from plain clinical text: continued pre-training, small enough for a laptop."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEPS, BATCH, LENGTH, RATE = 90, 4, 256, 4e-4


def read_documents(path: Path) -> list[str]:
    """The `text` of each line of a .jsonl file, or the paragraphs (blank line between) of any other."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in content.splitlines() if line.strip()]
    return [part.strip() for part in content.split("\n\n") if part.strip()]


def blocks(documents: list[str], tokenizer: Any) -> Iterator[list[int]]:
    """The documents as one endless stream of tokens, each closed by the end token, cut into equal blocks."""
    encoded = [[*tokenizer(text, verbose=False)["input_ids"], tokenizer.eos_token_id] for text in documents]
    stream = itertools.chain.from_iterable(itertools.chain.from_iterable(itertools.repeat(encoded)))
    while True:
        yield list(itertools.islice(stream, LENGTH))


def train_adapter(model_folder: Path, text: Path, folder: Path, steps: int = STEPS) -> list[float]:
    """Train rank 16 on all linear layers and save the adapter; returns the loss of every step."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    documents = read_documents(text)
    if not documents:
        raise ValueError(f"{text} has no text; give a .jsonl file with a text column, or plain text")
    batches = blocks(documents, AutoTokenizer.from_pretrained(model_folder))
    # float32: on CPUs bf16 training is several times slower, and 135M parameters fit anywhere.
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=RATE)
    losses = []
    for step in range(steps):
        tokens = torch.tensor(list(itertools.islice(batches, BATCH)))
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step + 1} of {steps}: loss {losses[-1]:.3f}", flush=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    return losses
