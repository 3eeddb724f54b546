"""The filters of recipes against the tensors that the parents have."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError, hint
from orchestrator.core.text import listed

TIED = "lm_head.weight"
"""The output embedding, which is not in the files of models whose input embedding it is."""


def check_filters(config: SweepConfig, tensors: Collection[str]) -> None:
    """Refuse a filter that is part of no tensor's name: mergekit would pass it over, and merge by the other values.

    Args:
        tensors: names of the parents' tensors; without any, nothing is checked.

    Raises:
        UserError: a recipe has such a filter.
    """
    names = {*tensors, TIED}
    parts = dict.fromkeys(part for name in names for part in name.split(".") if not part.isdecimal())
    for index, grid in enumerate(config.recipes):
        for key, name in grid.filters():
            if tensors and not any(name in tensor for tensor in names):
                raise UserError(
                    f"recipes[{index}].{key}: no tensor's name contains {name!r}{hint(name, parts)} (names are made of "
                    f"{listed(parts, 30)})"
                )
