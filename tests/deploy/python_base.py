"""A base image for the service's container image, of what this machine has: the Python that runs the tests.

It stands in for the slim Python image that `Dockerfile` names by default: no registry has to be reached, and it is
made in a second or two. It has Python with the modules that were there when it was made, pip, a busybox for the
shell, and the libraries that these need.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LEFT_OUT: Final = shutil.ignore_patterns(
    *("__pycache__", "*.a", "site-packages", "dist-packages", "test", "tests", "config-*"),
    *("idlelib", "lib2to3", "tkinter", "_tkinter*", "turtledemo", "ensurepip"),
)
FOR_WHEELS: Final = (
    *("libdl.so.2", "libgcc_s.so.1", "libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libutil.so.1"),
)
"""What wheels of compiled code expect of a system (manylinux), beside what Python itself needs."""

COMMANDS: Final = ("chmod", "cp", "find", "mkdir", "mv", "rm", "sh", "sleep", "touch")


def make_python_base(root: Path, busybox: str) -> Path:
    """Put the image's files under *root*, which must not exist; *busybox* is one that needs no libraries."""
    program = Path(sys.executable).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = root / "usr/local/lib" / version
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=LEFT_OUT, symlinks=True)
    for name in ("site-packages", "dist-packages"):  # Debian's Python looks into the second
        shutil.copytree(_pip(), library / name / "pip", ignore=shutil.ignore_patterns("__pycache__"))
    binaries = root / "usr/local/bin"
    binaries.mkdir()
    shutil.copy2(program, binaries / version)
    for name in ("python3", "python"):
        (binaries / name).symlink_to(version)
    _copy_libraries(root, [program, *library.rglob("*.so")])
    (root / "bin").mkdir()
    shutil.copy2(busybox, root / "bin/busybox")
    for name in COMMANDS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return root


def _pip() -> Path:
    import pip  # noqa: PLC0415  # only where an image is built

    return Path(pip.__file__).parent


def _copy_libraries(root: Path, programs: Iterable[Path]) -> None:
    """The shared libraries of *programs*, where the loader looks for them."""
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    found = {Path(match[1]) for match in re.finditer(r"(?:=> |^\t)(/\S+) \(0x", done.stdout, re.MULTILINE)}
    libc = next(path.parent for path in found if path.name.startswith("libc.so"))
    for path in found | {libc / name for name in FOR_WHEELS}:
        target = root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path.resolve(), target)
    # Names are looked up through libraries that no program names.
    for path in libc.glob("libnss_*.so.2"):
        shutil.copy2(path.resolve(), root / path.relative_to("/"))
