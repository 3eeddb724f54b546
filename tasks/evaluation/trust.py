"""Code that a sweep file could run through other files, and what prevents that.

A sweep file runs nothing. lm-eval's task files can: they name Python functions, metrics and scripts. So a folder of
them takes part only when the user's own environment says so; and templates are rendered in a sandbox.
"""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def check_trusted(config: SweepConfig) -> None:
    """Refuse folders of task files that are neither mergefront's nor named in MERGEFRONT_TRUST.

    Several folders in that variable are joined as in PATH.

    Raises:
        UserError: there is one.
    """
    ours = [ROOT / "tasks", ROOT / "examples"]
    named = [Path(each).resolve() for each in os.environ.get("MERGEFRONT_TRUST", "").split(os.pathsep) if each]
    for folder in config.include_path:
        if not any(Path(folder).resolve().is_relative_to(trusted) for trusted in (*ours, *named)):
            raise UserError(
                f"include_path: task files such as those in {folder} can run code, and a sweep file alone must not; if "
                f"you trust them, say so: export MERGEFRONT_TRUST={folder}"
            )


def close_templates() -> None:
    """Let lm-eval render the templates of prompts in a sandbox: its own environment lets them reach all of Python."""
    import lm_eval.utils
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    opened = lm_eval.utils.env
    closed = ImmutableSandboxedEnvironment(undefined=opened.undefined, keep_trailing_newline=True)
    closed.filters.update(opened.filters)
    lm_eval.utils.env = closed


def close_downloads() -> None:
    """Keep `evaluate` from downloading metrics: they are programs, and lm-eval loads them with a task file."""
    os.environ["HF_EVALUATE_OFFLINE"] = "1"  # it reads this when it is imported, which lm-eval does for such a metric
