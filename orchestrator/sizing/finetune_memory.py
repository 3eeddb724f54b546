"""What fine-tuning needs of memory before activations, and what to do where that is too much."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.config.finetune import Finetune, Method

ROOM = 0.8
"""The share of the memory that weights, gradients and moments may take, so that activations fit too."""


@dataclass(frozen=True)
class Need:
    """Bytes a weight, all of it sharded over the GPUs of a run (FSDP)."""

    weights: float
    gradients: float
    moments: float
    parameters: int
    gpus: int

    @property
    def bytes(self) -> float:
        """On each GPU."""
        return self.parameters * (self.weights + self.gradients + self.moments) / max(1, self.gpus)

    @property
    def words(self) -> str:
        """The arithmetic."""
        parts = [f"{value:g} ({name})" for name, value in self._parts if value]
        over = f" / {self.gpus} GPUs" if self.gpus > 1 else ""
        each = f"{self.parameters / 1e9:.2f} billion weights x {' + '.join(parts)} bytes{over}"
        return f"{each} = {self.bytes / 1e9:.1f} GB before activations"

    @property
    def _parts(self) -> tuple[tuple[str, float], ...]:
        return ("weights", self.weights), ("gradients", self.gradients), ("moments", self.moments)


def need(finetune: Finetune, method: Method, parameters: int, gpus: int, optimizer: str | None = None) -> Need:
    """
    Args:
        gpus: of one run; 0 for a CPU, which computes in float32.
    """
    if method != "full":  # the frozen weights; the adapter's own are below a hundredth of them
        return Need(2 if gpus else 4, 0, 0, parameters, gpus)
    moments = {"adamw_torch": 8, "adafactor": 0}[optimizer or finetune.optimizer]
    return Need(4, 4, moments, parameters, gpus)


def ways_out(finetune: Finetune, method: Method, parameters: int, gpus: int, room: float) -> list[str]:
    """What would fit into `room` bytes a GPU (or of the machine), in words."""
    found = []
    if gpus:
        fitting = (n for n in (2, 4, 8, 16, 32, 64) if need(finetune, method, parameters, n).bytes < room * ROOM)
        cards = next(fitting, None)
        if cards and cards > gpus:
            found.append(f"finetune.gpus: {cards} (FSDP over {cards} cards)")
    if method == "full":
        if need(finetune, "lora", parameters, gpus).bytes < room * ROOM:
            found.append("method: lora")
        if need(finetune, method, parameters, gpus, "adafactor").bytes < room * ROOM:
            found.append("optimizer: adafactor (no full moments)")
    return found


def refusal(finetune: Finetune, method: Method, parameters: int, gpus: int, room: float) -> str | None:
    """Why a run cannot fit into `room` bytes a GPU (or of the machine), and what would; None where it may."""
    needed = need(finetune, method, parameters, gpus)
    if needed.bytes <= room * ROOM:
        return None
    ways = ways_out(finetune, method, parameters, gpus, room)
    way = f"; what would fit: {', or '.join(ways)}" if ways else "; nothing here would fit: take a smaller model"
    place = "a GPU here has" if gpus else "this machine has"
    return f"{method} fine-tuning needs {needed.words}, but {place} {room / 1e9:.1f} GB{way}"
