"""What an installed mergefront is made of, and that it finds its own packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from setuptools.dist import Distribution

from orchestrator.core.packages import PACKAGES
from tests.helpers.paths import ROOT

OURS = (*PACKAGES, "mergefront")


def in_the_wheel(root: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The files that setuptools would put into a wheel of this folder."""
    monkeypatch.chdir(root)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files()
    distribution.include_package_data = False  # the tree's own files, not those of an index that it would write
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    modules = {
        Path(file).relative_to(root) if Path(file).is_absolute() else Path(file)
        for *_, file in build.find_all_modules()
    }
    data = {Path(folder, name) for _, folder, _, names in build.data_files for name in names}
    return {str(file) for file in modules | data}


def test_everything_that_the_packages_have_is_in_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = subprocess.run(["git", "ls-files", *OURS], cwd=ROOT, check=True, capture_output=True, text=True)
    assert set(listed.stdout.split()) - in_the_wheel(ROOT, monkeypatch) == set()


def test_the_next_file_is_in_the_wheel_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("README.md", "LICENSE", "tests/test_x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    wanted = {
        f"{package}/{file}" for package in OURS for file in ("__init__.py", "NOTICE", ".hidden", "deep/er/x.sbatch")
    }
    for name in (*wanted, "tasks/__pycache__/x.cpython-311.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert in_the_wheel(tmp_path, monkeypatch) == wanted


EDITABLE = """
import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location
home, folder = sys.argv[1:]
class Finder:  # as an editable installation has one, behind the path
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("orchestrator", "tasks", "tune", "cluster"):
            return spec_from_file_location(name, f"{home}/{name}/__init__.py")
sys.path[:] = [folder, *(place for place in sys.path if place not in ("", home))]
sys.meta_path.insert(sys.meta_path.index(PathFinder) + 1, Finder)
from orchestrator.core.packages import check_packages
check_packages()
import tasks.merging, cluster.errors, tune.racing
print(tasks.__file__)
"""


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", EDITABLE, str(ROOT), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_folder_of_a_packages_name_does_not_get_in_the_way(tmp_path: Path) -> None:
    for name in ("tasks", "tune", "cluster"):
        (tmp_path / name).mkdir()
    done = run(tmp_path)
    assert done.stdout.strip() == str(ROOT / "tasks" / "__init__.py"), done.stderr
    (tmp_path / "tasks" / "__init__.py").touch()
    done = run(tmp_path)
    assert f"UserError: the package 'tasks' would be imported from {tmp_path / 'tasks'}, not from {ROOT}" in done.stderr
