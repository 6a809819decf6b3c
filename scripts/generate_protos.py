"""Generates ``imgbuilder/pb`` from ``protos/``; with ``--check``, fails when what is committed differs.

Beside the Python modules it writes ``descriptors.binpb``, the descriptors of all services with all they
import, which reflection serves.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc_tools

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "imgbuilder" / "pb"
DOCSTRING = (
    '"""Messages and services of the contract, generated from protos/ by `make protos`: never edited."""\n'
)


def generate(target: Path) -> None:
    """Write the generated package to *target*, a folder that must not exist yet."""
    target.mkdir()
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    programs = Path(sys.executable).parent
    plugin = programs / "protoc-gen-python_betterproto2"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--plugin=protoc-gen-python_betterproto2={plugin}",
            f"-I{PROTOS}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_betterproto2_out={target}",
            "--python_betterproto2_opt=server_generation=async",
            "--python_betterproto2_opt=client_generation=async",
            f"--descriptor_set_out={target / 'descriptors.binpb'}",
            "--include_imports",
            *sources,
        ],
        check=True,
        cwd=PROTOS,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},  # the plugin runs ruff
    )
    for package in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        module = package / "__init__.py"
        if not module.exists() or not module.read_text().strip():
            module.write_text(DOCSTRING)


def differing(left: Path, right: Path) -> list[str]:
    """The files, relative to both folders, that are missing from one of them or not the same in both."""
    names = {
        str(path.relative_to(folder))
        for folder in (left, right)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(
        name
        for name in names
        if not (left / name).exists()
        or not (right / name).exists()
        or not filecmp.cmp(left / name, right / name, shallow=False)
    )


def main(arguments: list[str]) -> int:
    """Generate, or check what is there; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "pb"
        generate(fresh)
        changed = differing(fresh, GENERATED)
        if arguments == ["--check"]:
            for name in changed:
                print(
                    f"imgbuilder/pb/{name} is not what protos/ generate: run `make protos`", file=sys.stderr
                )
            return 1 if changed else 0
        shutil.rmtree(GENERATED)
        shutil.copytree(fresh, GENERATED)
        print(f"{len(changed)} files changed in imgbuilder/pb")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
