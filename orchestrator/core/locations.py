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
"""Schemes of the addresses of object storage, as pyarrow calls them."""


def is_remote(location: str) -> bool:
    """Whether this is an address of object storage, not a path or a hub id."""
    return "://" in location


def check_location(location: str) -> str:
    """Check an address of object storage, and return it; paths and hub ids are returned as they are.

    Raises:
        ValueError: its scheme is not supported, it has no bucket, or there are credentials in it.
    """
    if not is_remote(location):
        return location
    parts = urlsplit(location)
    if parts.scheme not in SCHEMES:
        known = " or ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{parts.scheme}:// is not supported; give a folder, or an address with {known}")
    if kind := credential(location):
        raise ValueError(
            f"the address contains {kind}, and it would be stored with the results; take it out, and put it where the "
            "storage's own tools find it (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws)"
        )
    if not parts.hostname or ".." in parts.path.split("/"):
        raise ValueError(f"{location!r} is not an address; write {parts.scheme}://bucket/prefix")
    return location


def credential(text: str) -> str | None:
    """Find a secret in a text that will be stored or shown, and return its kind, such as "an AWS key"; else None."""
    return next((kind for kind, pattern in CREDENTIALS.items() if pattern.search(text)), None)
