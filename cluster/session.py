"""Ray, joined or started, and what every process of ours does first.

The cluster is chosen as `ray.init()` chooses it: the one that RAY_ADDRESS names, else the one that `ray start` left on
this machine (so `ray submit` finds its own), else a local one, which ends with us; RAY_ADDRESS=local chooses that.

A cluster that was there before is never shut down. It is sent our code, without models: its nodes have the environment
(`cluster/launch/Dockerfile`), and none of them runs another version than the driver.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private
from orchestrator.core.packages import HOME, PACKAGES
from orchestrator.core.progress import say
from orchestrator.core.text import one_line

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No usage is reported to anyone, and workers do not print over the progress bar."""
MODELS = ("*.safetensors", "parents", "__pycache__")
"""What is left out of the code that is sent to other nodes."""


def quiet() -> None:
    """Set `QUIET` where nothing else is set. Libraries read these when they are imported: call it before any is."""
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})


def private() -> None:
    """Make what this process and its children write readable by its owner only, whichever library writes it."""
    os.umask(0o077)


@contextlib.contextmanager
def session(spill: Path | None = None) -> Iterator[None]:
    """Join or start Ray for the time of a sweep.

    Args:
        spill: where a cluster of our own writes objects that do not fit into memory; they may contain clinical text.

    Raises:
        UserError: the cluster that RAY_ADDRESS or `ray start` names cannot be joined.
    """
    quiet()
    private()
    import ray

    if ray.is_initialized():
        yield
        return
    joined = find()
    with code(joined) as environment:
        if joined:
            join(joined, environment)
        else:
            start(environment, spill)
    if threading.current_thread() is threading.main_thread():
        # Ray has replaced this handler; Slurm's and Kubernetes' SIGTERM is an interruption like Ctrl-C.
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        ray.shutdown()  # of a cluster that was joined, only our connection


def start(environment: dict[str, Any], spill: Path | None) -> None:
    """Start a local cluster that only this process can use.

    It listens on loopback alone, has no dashboard, and accepts no call without a token that is kept in memory (others
    may be able to read the file that Ray would keep it in).
    """
    import ray

    # Unset, Ray requires a token. It reads this when it is imported, so that setting it here would come too late.
    os.environ.pop("RAY_AUTH_MODE", None)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    spilling = {"object_spilling_directory": str(make_private(spill))} if spill else {}
    with _small():
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=environment,
            **spilling,
        )


@contextlib.contextmanager
def _small() -> Iterator[None]:
    """Have Ray start a cluster for this process alone, for which `ray.init` has no arguments."""
    from ray._private import parameter, ray_constants

    usual, usual_parameters = ray_constants.ENABLE_RAY_CLUSTER, parameter.RayParams
    # Ray's switch for Macs, where it listens on loopback alone because of the firewall's questions. It would replace an
    # address of 127.0.0.1 by that of the network.
    ray_constants.ENABLE_RAY_CLUSTER = False
    # Each is a Python process: one would look for nodes to add, the other read logs for drivers that print them.
    parameter.RayParams = functools.partial(usual_parameters, no_monitor=True, include_log_monitor=False)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, parameter.RayParams = usual, usual_parameters


def join(address: str, environment: dict[str, Any]) -> None:
    """Connect to a cluster that runs already.

    Raises:
        UserError: the cluster does not answer, or not without its token.
    """
    import ray

    try:
        knock(address)  # Ray would try for minutes
        # Without an address Ray looks as `find` did, and takes the token that belongs to what `ray start` left here.
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = one_line(error)
        named = "RAY_ADDRESS names it" if os.environ.get("RAY_ADDRESS") else "`ray start` left it on this machine"
        raise UserError(
            f"the Ray cluster at {address} ({named}) cannot be joined: {reason}; run this on one of its nodes, with "
            "its token (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH), or set RAY_ADDRESS=local for a cluster of its own"
        ) from None
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        say(
            f"the Ray cluster at {address} requires no token: anyone who reaches it can run code there "
            "(docs/cluster.md)"
        )


def find() -> str | None:
    """Find the address (host:port) of the cluster to join; None where there is none and a local one is to be started.

    Raises:
        UserError: RAY_ADDRESS is no such address.
    """
    from ray._private.services import canonicalize_bootstrap_address

    named = os.environ.get("RAY_ADDRESS", "")
    if "://" in named:
        raise UserError(
            f"RAY_ADDRESS={named}: a sweep's driver runs on a node of the cluster; submit it there (`ray job submit "
            "--address … -- mergefront run …`, docs/cluster.md), or unset RAY_ADDRESS"
        )
    try:
        found: str | None = canonicalize_bootstrap_address(None)
    except (ValueError, OSError) as error:
        raise UserError(
            f"RAY_ADDRESS={named}: is no address ({error}); write host:port, or local for a cluster of its own"
        ) from None
    if found is None or named:
        return found
    try:
        knock(found)
    except OSError:
        say(f"nothing answers at {found}, where `ray start` left a cluster: a local one is started")
        return None
    return found


def knock(address: str) -> None:
    """Try to connect to an address.

    Raises:
        OSError: nothing answers there.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextlib.contextmanager
def code(joined: str | None) -> Iterator[dict[str, Any]]:
    """Make Ray's runtime environment: the four packages from one place, the same in every process.

    On this machine they are used in place; a copy is sent to other nodes. What a Ray job has already (`ray job submit
    --working-dir`) is left as it is: Ray refuses a second one.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    ours: dict[str, Any] = {"worker_process_setup_hook": "cluster.session.private"}
    with tempfile.TemporaryDirectory() as folder:
        if joined is None:
            ours["working_dir"] = f"local://{HOME}"
        elif "working_dir" not in job:
            for name in PACKAGES:
                shutil.copytree(HOME / name, Path(folder) / name, ignore=shutil.ignore_patterns(*MODELS))
            ours["working_dir"] = folder
        quietly = {key: value for key, value in QUIET.items() if key not in job.get("env_vars", {})}
        yield {"env_vars": quietly, **{key: value for key, value in ours.items() if key not in job}}


def interrupt(*_: object) -> None:
    """End the command as Ctrl-C does; a handler of signals."""
    raise KeyboardInterrupt
