"""Plain values in a sweep file are what they look like."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.safe_yaml import read_yaml
from orchestrator.core.errors import UserError

VALUES: dict[str, Any] = {
    "2e-5": 2e-5, "1e3": 1000.0, "5e-2": 0.05, ".5e3": 500.0, "1E-4": 1e-4, "+1e2": 100.0, "-1.5e+3": -1500.0, "1.": 1.0,
    "0.5": 0.5, "-.5": -0.5, "7": 7, "+3": 3, "-3": -3, "0o17": 15, "0x1F": 31, "1_000": 1000, "1_000.5": 1000.5,
    ".inf": math.inf, "-.INF": -math.inf, "true": True, "False": False, "yes": True, "off": False, "~": None, "null": None,
    "": None, '"2e-5"': "2e-5", "'7'": "7", "0,5": "0,5", "1/2": "1/2", "half": "half", "010": "010", "1:30": "1:30",
    "2024-01-01": "2024-01-01", "12e45678": "12e45678", "nan": "nan", "inf": "inf", "1_": "1_", "0b11": "0b11", "1e": "1e",
    "y": "y", "n": "n", "=": "=", "v1.0": "v1.0", "1.2.3": "1.2.3",
}  # fmt: skip


def read(tmp_path: Path, text: str) -> Any:
    (tmp_path / "a.yaml").write_text(f"value: {text}\n")
    return read_yaml(tmp_path / "a.yaml", "")["value"]


@pytest.mark.parametrize("text", VALUES)
def test_a_plain_value(text: str, tmp_path: Path) -> None:
    value = read(tmp_path, text)
    assert value == VALUES[text] and type(value) is type(VALUES[text])


def test_not_a_number_is_one_of_its_own(tmp_path: Path) -> None:
    assert math.isnan(read(tmp_path, ".nan"))


@pytest.mark.parametrize("text", ["!!int x", "!!float y", "!!bool maybe"])
def test_a_tag_that_does_not_fit(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not valid YAML"):
        read(tmp_path, text)
