"""Where things lie in the repository, and the data sets beside it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DEMO = ROOT / "tasks" / "demo"
CLINICAL = DEMO / "parents" / "clinical"
INSTRUCT = DEMO / "parents" / "instruct"
SHAPES = ROOT / "tests" / "data" / "shapes"
"""The configs of large models."""
DATA = Path(os.environ.get("MERGEFRONT_DATA", ROOT.parent / "shared" / "data"))
HUB_DATA = DATA / "hf_mirror"
"""The hub's data sets, as folders by name."""
