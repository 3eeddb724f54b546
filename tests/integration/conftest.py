"""Sweep files that are written as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: bytes | str | dict[str, Any]) -> Path:
        path = tmp_path / "sweep.yaml"
        text = yaml.safe_dump(text, sort_keys=False) if isinstance(text, dict) else text
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write
