"""Reading the JSON files of a model's folder, which are untrusted and are checked first."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.models.plain import plain_config


def check_folder(where: str, folder: Path) -> None:
    """Refuse a model's folder that refers to files outside it, or to custom code of its tokenizer.

    What is read from the folder is stored, and may be published.

    Args:
        where: the sweep file's key, for messages.

    Raises:
        UserError: a link leads out of the folder (or, in the hub's cache, out of the model's part of it), or the
            tokenizer has code of its own (`auto_map`).
    """
    home = (folder.parent.parent if folder.parent.name == "snapshots" else folder).resolve()
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(home):
            raise UserError(
                f"{where}: {file} links to a file outside {home}; copy it there, or name the folder it is in"
            )
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.exists() and (code := read_json(where, tokenizer).get("auto_map")):
        raise UserError(
            f"{where}: {tokenizer} needs custom code (auto_map: {str(code)[:200]}), which mergefront never runs (no "
            "trust_remote_code); remove auto_map if transformers knows the tokenizer, or take another model"
        )


def read_json(where: str, path: Path) -> dict[str, Any]:
    """Read the JSON object in a file of a model.

    Args:
        where: the sweep file's key of the model, for messages.

    Raises:
        UserError: the file is missing, cannot be read, or contains no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{where}: {path} does not exist; give a folder as save_pretrained writes it") from None
    except OSError as error:
        raise UserError(f"{where}: {path} cannot be read ({error.strerror}); correct the path or permissions") from None
    except RecursionError:
        raise UserError(f"{where}: {path} is nested too deep; download or save the model again") from None
    except ValueError as error:
        raise UserError(f"{where}: {path} is not valid JSON ({error}); download or save the model again") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: {path} has no JSON object; download or save the model again")
    return value


def read_plain_config(where: str, path: Path) -> dict[str, Any]:
    """Read a model's config.json and return its plain form; raises as `read_json` and `plain_config`."""
    try:
        return plain_config(where, read_json(where, path))
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{where}: {path} is no model's config ({error}); download or save the model again") from None
