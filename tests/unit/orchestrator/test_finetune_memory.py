"""Fine-tuning that does not fit is refused with the arithmetic."""

from __future__ import annotations

from orchestrator.sizing.finetune_memory import need, refusal
from tests.helpers.boards import finetune


def test_full_fine_tuning_of_8b_does_not_fit_one_card_and_is_told_what_would() -> None:
    why = refusal(finetune(), "full", 8_000_000_000, 1, 80e9)
    assert why is not None
    assert "8.00 billion weights x 4 (weights) + 4 (gradients) + 8 (moments) bytes = 128.0 GB before activations" in why
    assert "finetune.gpus: 4 (FSDP over 4 cards)" in why and "method: lora" in why
    assert refusal(finetune(), "lora", 8_000_000_000, 1, 80e9) is None
    assert refusal(finetune(gpus=4), "full", 8_000_000_000, 4, 80e9) is None
    assert "adafactor" in str(refusal(finetune(), "full", 8_000_000_000, 1, 141e9))
    assert need(finetune(optimizer="adafactor"), "full", 10, 1).bytes == 80
