"""The types of the sweep file's keys: the strict model, names, metrics and locations."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from orchestrator.core.locations import check_location

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Strict(BaseModel):
    """A frozen pydantic model without type coercion, unknown keys, infinities and NaNs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name; use letters, digits, '_', '-' and '.', such as clinical")
    return name


def _check_metric(metric: str | list[str] | None) -> str | list[str] | None:
    if isinstance(metric, list) and (not metric or len(set(metric)) < len(metric)):
        raise ValueError(f"metric takes one name or a list of different ones, but got {metric}")
    return metric


Location = Annotated[str, AfterValidator(check_location)]
"""A path, or an address such as s3://bucket/prefix, with pyarrow's options for its filesystem as the query."""
Metric = Annotated[str | list[str] | None, AfterValidator(_check_metric)]
Name = Annotated[str, AfterValidator(_check_name)]
