"""Results folders for the tests of what reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.answers import Results


@pytest.fixture(params=["folder", "s3"])
def results(request: pytest.FixtureRequest, sweep: Callable[..., Path], tmp_path: Path) -> Results:
    place = request.getfixturevalue("bucket")(tmp_path.name) if request.param == "s3" else None
    return Results(sweep(ledger=place), tmp_path / "out")
