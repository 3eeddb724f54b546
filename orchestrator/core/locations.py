"""Paths and addresses of object storage, and the secrets that must not stand in them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

CREDENTIALS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "an AWS key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a password in a URL": re.compile(r"://[^/@\s]+@"),
    "a key in a URL": re.compile(r"[?&](access_key|secret_key|session_token|token|X-Amz-[A-Za-z]+)=", re.IGNORECASE),
}


SCHEMES = ("s3", "gs")
"""Of object storage, as pyarrow calls them."""


def is_remote(location: str) -> bool:
    """Whether this is an address of object storage and not a path or a hub id."""
    return "://" in location


def check_location(location: str) -> str:
    """Raises:
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


def credential(text: str) -> str | None:
    """What kind of secret stands in a text that is going to be stored or shown; None where none does."""
    return next((kind for kind, pattern in CREDENTIALS.items() if pattern.search(text)), None)
