"""The launch files are what Ray, KubeRay, Slurm and Docker take, and each keeps its doors closed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.paths import ROOT

LAUNCH = ROOT / "cluster" / "launch"


def load(name: str) -> Any:
    return yaml.safe_load((LAUNCH / name).read_text())


@pytest.mark.parametrize("name", ["onprem.yaml", "aws.yaml"])
def test_cluster_files_are_what_ray_up_takes(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = load(name)
    validate_config(prepare_config(config))
    start = {part: " ".join(config[f"{part}_start_ray_commands"]) for part in ("head", "worker")}
    for commands in start.values():
        assert "RAY_AUTH_MODE=token ray start" in commands and "umask 077" in commands
    assert "--dashboard-host=127.0.0.1" in start["head"] and "0.0.0.0" not in (LAUNCH / name).read_text()
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for local in set(config["file_mounts"].values()) - {"~/.ray/auth_token"}:
        assert (ROOT / local).exists()


def test_the_parts_that_travel_are_enough_to_set_up() -> None:
    config = load("onprem.yaml")
    mounts, left_out = config["file_mounts"], set(config["rsync_exclude"])
    assert {
        "orchestrator",
        "tasks",
        "tune",
        "cluster",
        "requirements",
        "Makefile",
        "pyproject.toml",
        "README.md",
    } <= set(mounts.values())
    files = [f for part in mounts.values() for f in (ROOT / part).rglob("*") if f.is_file()]
    # `make smollm2` leaves its models in examples/.
    assert sum(f.stat().st_size for f in files if not left_out & set(f.relative_to(ROOT).parts)) < 50e6


def test_the_rayjob_is_one() -> None:
    job = load("kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) <= {
        "entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec",
    }  # fmt: skip
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "requirements" / "gpu.txt").read_text(), re.MULTILINE)
    assert cluster["rayVersion"] == pinned, "KubeRay refuses authOptions, and the job its nodes, otherwise"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert set(container["resources"]["requests"]) == set(container["resources"]["limits"])
            assert all("value" in item or "secretKeyRef" in item["valueFrom"] for item in container["env"])


def test_the_slurm_script_starts_ray_everywhere_and_the_sweep_once(tmp_path: Path) -> None:
    """Run with stand-ins for Slurm's and Ray's commands, which write down what they were told."""
    script = LAUNCH / "slurm.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, does in {
        "scontrol": "echo node-1; echo node-2",
        "srun": f'echo "$RAY_AUTH_MODE $(umask) $*" >> {tmp_path}/told',
        "ray": f'echo "ray $*" >> {tmp_path}/told',
    }.items():
        (tmp_path / ".venv" / "bin" / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / ".venv" / "bin" / name).chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    subprocess.run(["bash", script, "my sweep.yaml", "out"], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "told").read_text().splitlines() == [
        "ray get-auth-token --generate",
        "token 0077 ray symmetric-run --address node-1:6379 --min-nodes 2 --dashboard-host 127.0.0.1 "
        "--disable-usage-stats -- mergefront run my sweep.yaml --out out",
    ]
    without = subprocess.run(["bash", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert without.returncode != 0 and "SWEEP.yaml is missing" in without.stderr


def test_the_image_copies_what_is_there_and_runs_as_nobody_special() -> None:
    lines = (LAUNCH / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    commands = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {name for name, _ in commands} <= {"FROM", "ARG", "RUN", "ENV", "WORKDIR", "COPY", "USER"}
    for name, rest in commands:
        if name == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1])
    assert [rest for name, rest in commands if name == "USER"] == ["ray"]
    makefile = (ROOT / "Makefile").read_text()
    assert "LOCKED := .venv/.locked-$(DEVICE)" in makefile, "the layer of packages is this target"


@pytest.mark.parametrize("name", sorted(path.name for path in LAUNCH.iterdir() if path.suffix in {".yaml", ".sbatch"}))
def test_the_page_names_every_file(name: str) -> None:
    assert f"../cluster/launch/{name})" in (ROOT / "docs" / "cluster.md").read_text()
