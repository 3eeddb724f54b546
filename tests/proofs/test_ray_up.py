"""`ray up`, `ray submit`, `ray job submit`, `ray down` for real, over ssh, with the launch file for one's own machines.

The machine is this one behind an sshd of its own, in namespaces: its processes are its own (`ray down` runs `ray stop`,
which would end every other Ray here), and so are its /tmp/ray, its home and its user database. mergefront's environment is
linked there instead of installed once more; the code is what `ray up` brought.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.paths import ROOT

VENV = Path(sys.prefix)
SSHD = shutil.which("sshd", path="/usr/sbin:/sbin:" + os.environ["PATH"])
TOOLS = ("ssh", "ssh-keygen", "rsync", "unshare", "make")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None] + ([] if SSHD else ["sshd"])
NEED = "needs {} (apt-get install openssh-server rsync)"
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
ISOLATED = not MISSING and os.geteuid() == 0 and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(bool(MISSING), reason=NEED.format(", ".join(MISSING))),
    pytest.mark.skipif(not ISOLATED, reason="needs root and namespaces: `ray stop` would end every other Ray here"),
]

BOOT = """
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /tmp/ray
mount --bind {node}/ray /tmp/ray
mount --bind {node}/passwd /etc/passwd
exec {sshd} -D -e -f {node}/sshd_config
"""
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {node}/host_key
AuthorizedKeysFile {node}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
"""
DIAL = "exec 2> /dev/null 3<> /dev/tcp/127.0.0.1/{port}; cat <&3 & exec cat >&3\n"
"""ssh's way to another port than 22."""


@dataclass(frozen=True)
class Machine:
    home: Path
    config: Path
    dashboard: str
    client: dict[str, str]

    def count(self, process: str) -> int:
        """How many processes of this name run there."""
        auth = yaml.safe_load(self.config.read_text())["auth"]
        options = ["-i", auth["ssh_private_key"], "-o", f"ProxyCommand={auth['ssh_proxy_command']}"]
        options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        command = ["ssh", *options, "root@127.0.0.1", f"pgrep -c {process}"]
        return int(subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60).stdout)

    def ray(self, *command: str, timeout: int = 1500) -> str:
        """Run Ray's command line as from a laptop; gives what it says."""
        done = subprocess.run(
            [VENV / "bin" / "ray", *command],
            cwd=ROOT,
            env=self.client,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    node, port, dashboard = tmp_path, free_port(), free_port()
    for name in ("home", "ray", "client"):
        (node / name).mkdir(mode=0o700)
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", node / name], check=True)
    users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    homes = [[*user[:5], str(node / "home"), "/bin/bash"] if user[2] == "0" else user for user in users]
    (node / "passwd").write_text("".join(":".join(user) + "\n" for user in homes))
    (node / "sshd_config").write_text(CONFIG.format(port=port, node=node))
    (node / "dial").write_text(DIAL.format(port=port))
    (node / "boot").write_text(BOOT.format(node=node, sshd=SSHD))
    (node / "cluster.yaml").write_text(yaml.safe_dump(cluster(node, dashboard), sort_keys=False))
    client = {**os.environ, "HOME": str(node / "client"), "RAY_TMPDIR": str(node / "client"), "TERM": "dumb"}
    client |= {"RAY_AUTH_MODE": "token", "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}"}
    for key in ("RAY_ADDRESS", "PYTHONPATH"):
        client.pop(key, None)
    with (node / "sshd.log").open("w") as log:
        sshd = subprocess.Popen(
            [*UNSHARE, "bash", node / "boot"], stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
        )
    try:
        wait_for(port, sshd, node / "sshd.log")
        yield Machine(node / "home", node / "cluster.yaml", f"http://127.0.0.1:{dashboard}", client)
    finally:
        sshd.kill()  # and with it, by --kill-child, everything in its namespace
        sshd.wait()


def wait_for(port: int, sshd: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert sshd.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def cluster(node: Path, dashboard: int) -> dict[str, object]:
    """onprem.yaml with what is marked there as yours, and the environment linked instead of made."""
    text = (ROOT / "cluster" / "launch" / "onprem.yaml").read_text().replace("6379", str(free_port()))
    text = text.replace("--dashboard-host=", f"--dashboard-port={dashboard} --dashboard-host=")
    config: dict[str, object] = yaml.safe_load(text)
    config["cluster_name"] = f"mergefront-{node.name}"
    config["provider"] = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []}
    config["auth"] = {
        "ssh_user": "root",
        "ssh_private_key": str(node / "key"),
        "ssh_proxy_command": f"bash {node / 'dial'}",
    }
    _, path = config["setup_commands"]  # type: ignore[misc]
    shown = path.replace("$PATH", "$PATH PYTHONPATH=${PYTHONPATH:-$HOME/mergefront}")
    config["setup_commands"] = [f"ln -sfn {VENV} ~/mergefront/.venv", shown]
    return config


@pytest.mark.timeout(3600)
def test_up_submit_job_down(machine: Machine) -> None:
    config = str(machine.config)
    machine.ray("get-auth-token", "--generate")
    machine.ray("up", config, "--yes", "--no-config-cache")
    demo = ("--", "run", "mergefront/examples/demo.yaml", "--out", "runs/demo")
    said = machine.ray("submit", "--no-config-cache", config, "cluster/launch/submit.py", *demo)
    print(said)
    assert "report: " in said and "asks for no token" not in said and "Traceback" not in said
    out = machine.home / "runs" / "demo"
    rows = pq.read_table(out / "leaderboard.parquet").to_pylist()
    assert len(rows) == 20 and {row["status"] for row in rows} == {"scored"}
    assert not (out / "ray").exists(), "it spilt nothing of a cluster of its own: it joined the one that was there"
    assert [path for path in (out, *out.rglob("*")) if path.lstat().st_mode & 0o077] == []
    again = machine.ray("submit", "--no-config-cache", config, "cluster/launch/submit.py", *demo)
    assert "starting engines" not in again, "the cluster goes on, and what is answered is not asked twice"
    assert machine.count("raylet") == 1
    job = machine.home / "runs" / "job"
    submit = ("job", "submit", "--address", machine.dashboard, "--working-dir", str(ROOT), "--")
    said = machine.ray(*submit, "mergefront", "run", "examples/demo.yaml", "--out", str(job))
    print(said)
    assert "succeeded" in said and "report: " in said
    assert {row["recipe_id"] for row in pq.read_table(job / "leaderboard.parquet").to_pylist()} == {
        row["recipe_id"] for row in rows
    }
    machine.ray("down", config, "--yes")
    assert machine.count("raylet") == 0
