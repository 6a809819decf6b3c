"""The service's code as it is in the checkout now, or as it was in a commit: as a copy, so that work may go on."""

from __future__ import annotations

import compileall
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.bench.children import ChildError

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = "imgbuilder"
NO_COMMIT: Final = "unknown"


def copy(folder: Path, commit: str | None = None) -> Path:
    """The folder in which the package is, below *folder*: that of the checkout, or of *commit*.

    :raises ChildError: if there is no such commit.
    """
    tree = folder / "tree"
    if commit is None:
        shutil.copytree(ROOT / PACKAGE, tree / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        tree.mkdir()
        archive = folder / "tree.tar"
        _git("archive", "--output", str(archive), commit, PACKAGE)
        shutil.unpack_archive(archive, tree, filter="data")
    compileall.compile_dir(tree, quiet=2)
    return tree


def commit() -> str:
    """The commit that is checked out, with a plus sign if its package was changed; `NO_COMMIT` without git."""
    try:
        text = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", PACKAGE)
    except ChildError:
        return NO_COMMIT
    return f"{text}+" if changed else text


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ChildError("there is no git here") from error
    if done.returncode != 0:
        raise ChildError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
