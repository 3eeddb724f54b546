"""What the keys of a sweep file are made of: the strict model, names, objectives, and the one kind of user's error."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


CREDENTIALS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "an AWS key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a password in a URL": re.compile(r"://[^/@\s]+@"),
    "a key in a URL": re.compile(r"[?&](access_key|secret_key|session_token|token|X-Amz-[A-Za-z]+)=", re.IGNORECASE),
}


class UserError(Exception):
    """The user's input is wrong. The message names the key, the value and the way out."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name; use letters, digits, '_', '-' and '.', such as clinical")
    return name


def _check_metric(metric: str | list[str] | None) -> str | list[str] | None:
    if isinstance(metric, list) and (not metric or len(set(metric)) < len(metric)):
        raise ValueError(f"metric takes one name or a list of different ones, but got {metric}")
    return metric


SCHEMES = ("s3", "gs")
"""Of object storage, as pyarrow calls them."""


def is_remote(location: str) -> bool:
    """Whether this is an address of object storage and not a path or a hub id."""
    return "://" in location


def check_location(location: str) -> str:
    """
    Raises:
        ValueError: an address of a kind that is not supported, without a bucket, or with credentials in it.
    """
    if not is_remote(location):
        return location
    parts = urlsplit(location)
    if parts.scheme not in SCHEMES:
        known = " or ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{parts.scheme}:// is not supported; give a folder, or an address with {known}")
    if kind := credential(location):
        raise ValueError(
            f"the address holds {kind}, and would be written down; take it out, and put it where the storage's own "
            "tools find it (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws)"
        )
    if not parts.hostname or ".." in parts.path.split("/"):
        raise ValueError(f"{location!r} is no address; write {parts.scheme}://bucket/prefix")
    return location


Location = Annotated[str, AfterValidator(check_location)]
"""A path, or an address such as s3://bucket/prefix, with pyarrow's options for its filesystem as the query."""
Metric = Annotated[str | list[str] | None, AfterValidator(_check_metric)]
Name = Annotated[str, AfterValidator(_check_name)]


class TaskUse(Strict):
    task: str
    """A task, group or tag of lm-eval, or of a folder in include_path."""
    num_fewshot: int | None = Field(default=None, ge=0)
    limit: int | None = Field(default=None, ge=1)
    metric: Metric = None
    gen_kwargs: dict[str, Any] = {}


class Objective(Strict):
    """A suite of lm-eval tasks and how it becomes one number."""

    tasks: list[str | TaskUse] = Field(min_length=1)
    metric: Metric = None
    """lm-eval's metric name (`acc`, `exact_match,flexible-extract`); several are averaged; default: each
    task's first metric (IFEval: prompt- and instance-level strict accuracy)."""
    average: Literal["tasks", "groups", "questions"] = "tasks"
    """Unweighted mean over the tasks; the same with a group of task files counting as one (of `medical`, MMLU's six
    subjects); or every question counting the same."""
    split: Literal["search", "confirm"] | None = None
    """Ask one side of the questions only, so that another objective can ask the other: the benchmark's own validation
    and test split where it has both (MedQA, PubMedQA), else two halves by the hash of each question."""
    expect: dict[str, int] = {}
    """Task → its number of questions, where the data set is known to differ from the published one."""
    direction: Literal["maximize", "minimize"] = "maximize"
    num_fewshot: int | None = Field(default=None, ge=0)
    """Default: the task file's own."""
    limit: int | None = Field(default=None, ge=1)
    """The first so many documents of each task; default: all."""
    gen_kwargs: dict[str, Any] = {}
    """Laid over the task's generation_kwargs (max_gen_toks, temperature, …), as lm-eval's --gen_kwargs."""
    apply_chat_template: bool = False
    front: bool = True
    """False: measured and reported, but no axis of the front."""


def credential(text: str) -> str | None:
    """What kind of secret stands in a text that is going to be stored or shown; None where none does."""
    return next((kind for kind, pattern in CREDENTIALS.items() if pattern.search(text)), None)


def hint(word: str, known: Any) -> str:
    close = difflib.get_close_matches(str(word), list(map(str, known)), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
