"""A backend is one entry, and what opens its engine has the same name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from orchestrator.config.backends import BACKENDS
from orchestrator.config.workers import Workers
from tasks.serving.backends import OPENERS


def test_every_backend_can_be_opened() -> None:
    assert OPENERS.keys() == BACKENDS.keys()


def test_an_unknown_backend_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValidationError, match=r"no backend 'vlm'; did you mean 'vllm'\? \(there are: vllm, fake\)"):
        Workers.model_validate({"backend": "vlm"})


def test_a_backend_without_a_model_needs_neither_torch_nor_vllm() -> None:
    code = """
import sys
from pathlib import Path
from orchestrator.config.workers import Workers
from orchestrator.core.records import Question, Serving
from tasks.serving.backends import Opening, open_engine

serving = Serving("t", None, (), 64, "x", (), "a", "/nowhere")
engine = open_engine(Opening(Workers(backend="fake"), serving, lambda: 1 / 0, Path("/nowhere")))
assert len(engine.answer([Question((1,), (2,))])) == 1
print({"torch", "vllm", "mergekit"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
