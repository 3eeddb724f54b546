"""The speeds of the card that others are measured against: copies on it and to it, and matrix products."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.gpu.models import finish, parse, step_parser

COPIED_BYTES = 2**30


def median_s(action: Callable[[], object], repeat: int = 7) -> float:
    """Median seconds of an action on the device, its work finished; the first time does not count."""
    times = []
    for _ in range(repeat + 1):
        began = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def copy_bytes_per_s(device: str, size: int = COPIED_BYTES) -> float:
    """Bytes read and written a second by a copy within the device's memory."""
    first = torch.empty(size, dtype=torch.uint8, device=device).random_()
    second = torch.empty_like(first)
    return 2 * size / median_s(lambda: second.copy_(first))


def host_bytes_per_s(device: str, size: int = COPIED_BYTES) -> float:
    """Bytes a second from pinned host memory to the device."""
    there = torch.empty(size, dtype=torch.uint8, device=device)
    here = torch.empty(size, dtype=torch.uint8).pin_memory()
    return size / median_s(lambda: there.copy_(here, non_blocking=True))


def flops_per_s(device: str, size: int) -> float:
    """Operations a second of a square bfloat16 matrix product."""
    first, second = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    return 2 * size**3 / median_s(lambda: first @ second)


def main() -> None:
    args = parse(step_parser(__doc__, "8b"))
    device = "cuda" if args.gpu else "cpu"
    size = COPIED_BYTES if args.gpu else 2**26
    result = {
        "copy_gb_s": round(copy_bytes_per_s(device, size) / 1e9, 1),
        "tflop_s": round(flops_per_s(device, 8192 if args.gpu else 512) / 1e12, 2),
    }
    if args.gpu:
        result["host_to_card_gb_s"] = round(host_bytes_per_s(device) / 1e9, 1)
        result["memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)
    finish(result)


if __name__ == "__main__":
    main()
