"""The memory that fine-tuning needs before activations, and what to change where that is too much."""

from __future__ import annotations

import os
from dataclasses import dataclass

from orchestrator.config.finetune import Finetune, Method
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.text import gigabytes
from orchestrator.sizing.nodes import ACCELERATORS, full_name

USABLE_SHARE = 0.8
"""Share of the memory that weights, gradients and moments may take, so that activations fit too."""


@dataclass(frozen=True)
class Need:
    """The memory that a fine-tuning run needs, all of it sharded over the run's GPUs (FSDP)."""

    weight_bytes_each: float
    """Bytes per weight."""
    gradient_bytes_each: float
    """Bytes per weight for its gradient."""
    moment_bytes_each: float
    """Bytes per weight for the optimizer's state."""
    parameters: int
    """Number of weights."""
    gpus: int
    """GPUs of the run; 0 for training on the CPU."""

    @property
    def bytes_each(self) -> float:
        """Bytes per weight, for weight, gradient and optimizer state together."""
        return self.weight_bytes_each + self.gradient_bytes_each + self.moment_bytes_each

    @property
    def gpu_bytes(self) -> float:
        """Bytes on each GPU, or of the machine's memory without one."""
        return self.parameters * self.bytes_each / max(1, self.gpus)

    @property
    def arithmetic(self) -> str:
        """How the bytes add up, as text."""
        each = {
            "weights": self.weight_bytes_each,
            "gradients": self.gradient_bytes_each,
            "moments": self.moment_bytes_each,
        }
        parts = " + ".join(f"{value:g} ({name})" for name, value in each.items() if value)
        over = f" / {self.gpus} GPUs" if self.gpus > 1 else ""
        product = f"{self.parameters / 1e9:.2f} billion weights x {parts} bytes{over}"
        return f"{product} = {gigabytes(self.gpu_bytes)} before activations"


def need(finetune: Finetune, method: Method, parameters: int, gpus: int, optimizer: str | None = None) -> Need:
    """Compute the memory that a run with a method needs.

    Args:
        parameters: number of weights of the model.
        gpus: GPUs of one run; 0 for the CPU, which computes in float32.
        optimizer: replaces `finetune.optimizer`.
    """
    if method != "full":  # the frozen weights; the adapter's own are below a hundredth of them
        return Need(2 if gpus else 4, 0, 0, parameters, gpus)
    moments = {"adamw_torch": 8, "adafactor": 0}[optimizer or finetune.optimizer]
    return Need(4, 4, moments, parameters, gpus)


def alternatives(finetune: Finetune, method: Method, parameters: int, gpus: int, room_bytes: float) -> list[str]:
    """List changes to the sweep file, as text, with each of which the run would fit.

    Args:
        parameters: number of weights of the model.
        gpus: GPUs of one run; 0 for the CPU.
        room_bytes: memory of each GPU, or of the machine without GPUs.
    """

    def fits(changed: Need) -> bool:
        return changed.gpu_bytes < room_bytes * USABLE_SHARE

    found = []
    if gpus:
        cards = next((n for n in (2, 4, 8, 16, 32, 64) if fits(need(finetune, method, parameters, n))), None)
        if cards and cards > gpus:
            found.append(f"finetune.gpus: {cards} (FSDP over {cards} cards)")
    if method == "full":
        if fits(need(finetune, "lora", parameters, gpus)):
            found.append("method: lora")
        if fits(need(finetune, method, parameters, gpus, "adafactor")):
            found.append("optimizer: adafactor (no full moments)")
    return found


def check_memory(config: SweepConfig, parameters: int) -> None:
    """Check that the runs of fine-tuning fit into the GPUs that the sweep names, or into this machine.

    Without GPUs nothing is known where RAY_ADDRESS names a cluster.

    Args:
        parameters: number of weights of one model.

    Raises:
        UserError: a run does not fit; the message has the arithmetic.
    """
    finetune = config.finetune
    if finetune is None:
        return
    gpus = finetune.gpus_of_a_run(config.workers.gpus)
    room_bytes = _memory_of(config, gpus)
    for method in finetune.method if room_bytes is not None else ():
        assert room_bytes is not None, "just checked"
        if why := refusal(finetune, method, parameters, gpus, room_bytes):
            raise UserError(f"finetune.method: {why}")


def _memory_of(config: SweepConfig, gpus: int) -> float | None:
    """Memory in bytes of one GPU of the sweep, or of this machine where `gpus` is 0; None if it is not known."""
    if gpus:
        known = ACCELERATORS.get(full_name(config.workers.accelerator_type or ""))
        return known.memory_bytes if known else None
    if os.environ.get("RAY_ADDRESS", "local") != "local":
        return None
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def refusal(finetune: Finetune, method: Method, parameters: int, gpus: int, room_bytes: float) -> str | None:
    """Explain why a run cannot fit into the memory, and what would fit; None where it may fit.

    Args:
        parameters: number of weights of the model.
        gpus: GPUs of one run; 0 for the CPU.
        room_bytes: memory of each GPU, or of the machine without GPUs.
    """
    needed = need(finetune, method, parameters, gpus)
    if needed.gpu_bytes <= room_bytes * USABLE_SHARE:
        return None
    others = alternatives(finetune, method, parameters, gpus, room_bytes)
    way = f"; what would fit: {', or '.join(others)}" if others else "; nothing here would fit: take a smaller model"
    place = "a GPU here has" if gpus else "this machine has"
    return f"{method} fine-tuning needs {needed.arithmetic}, but {place} {gigabytes(room_bytes)}{way}"
