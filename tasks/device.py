"""The name of the device that a process works on."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def device_name(gpu: bool) -> str:
    """Return the first GPU's name as CUDA has it, or the CPU's as the machine has it."""
    if gpu:
        import torch  # here, because a worker without a GPU need not load it

        return str(torch.cuda.get_device_name())
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
