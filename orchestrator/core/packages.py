"""Our four packages: their names are common ones, so each process makes sure that it has ours."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from orchestrator.core.errors import UserError

PACKAGES = ("orchestrator", "tasks", "tune", "cluster")
HOME = Path(__file__).resolve().parents[2]
"""The folder that this process has the four packages from."""


def check_packages() -> None:
    """Refuse another distribution's packages of the same names; a mere folder of such a name is passed over.

    Python prefers a package anywhere on its path to a folder without `__init__.py`, but not one that it finds by an
    import hook, as in an editable installation; so our folder is put on the path, behind all others.

    Raises:
        UserError: one of the packages is not the one beside this file.
    """
    if str(HOME) not in sys.path:
        sys.path.append(str(HOME))
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        folders = [Path(folder) for folder in (spec.submodule_search_locations or [spec.origin or ""])] if spec else []
        if [folder.resolve() for folder in folders] != [HOME / name]:
            places = " and ".join(map(str, folders)) or "nowhere"
            raise UserError(
                f"the package {name!r} would be imported from {places}, not from {HOME}; another distribution has the "
                "same name, or they were shipped one by one: run mergefront from its own environment (make setup), "
                "without PYTHONPATH, and ship the folder that contains all four as Ray's working_dir"
            )
