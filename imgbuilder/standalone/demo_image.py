"""A small base image made on the spot, without any network, of the machine's statically linked busybox.

For the demo and for tests: good enough for Dockerfiles that use common commands. The same busybox always
gives the same image.
"""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path
from typing import Final

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.standalone.engines.layouts import encode, write_layer, write_layout
from imgbuilder.standalone.engines.protocol import OciLayout

PLACES: Final = ("/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/usr/sbin/busybox")

COMMANDS: Final = (  # noqa: SIM905  # seventy words read better so
    "ash awk basename cat chmod chown cp cut date dd df diff dirname du echo env expr false find grep gunzip gzip"
    " head hostname id kill ln ls md5sum mkdir mktemp mv nc nproc od printf ps pwd readlink realpath rm rmdir sed"
    " seq sh sha256sum sleep sort stat sync tail tar tee test timeout touch tr true uname uniq unlink vi wc wget"
    " which whoami xargs yes"
).split()
"""What the image knows as commands; the others are had with ``busybox NAME``."""

FILES: Final = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "etc/os-release": b'NAME="busybox"\nID=busybox\n',
}
FOLDERS: Final = {"bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755}

CREATED: Final = "1970-01-01T00:00:00Z"
"""Always the same, but not left out: buildah's cache does not find layers on a base without it."""

_ARCHITECTURES: Final = {62: "amd64", 183: "arm64", 243: "riscv64", 22: "s390x", 21: "ppc64le"}
_DYNAMIC: Final = 3
"""The kind of program header that names a dynamic loader, which the image would not have."""


class BusyboxNotFoundError(ImgbuilderError):
    """The machine has no statically linked busybox."""

    def __init__(self) -> None:
        super().__init__("no statically linked busybox found: install the package busybox-static")


def find_busybox() -> Path:
    """Where this machine's statically linked busybox is.

    :raises BusyboxNotFoundError: if there is none.
    """
    for place in map(Path, PLACES):
        if place.is_file() and _is_static(place.read_bytes()):
            return place
    raise BusyboxNotFoundError


def write_demo_image(path: Path, busybox: Path | None = None) -> OciLayout:
    """Write the base image into the new folder *path*.

    :param busybox: the program to make it of; found where it usually is if not given.
    :raises BusyboxNotFoundError: if there is none.
    """
    program = (busybox or find_busybox()).read_bytes()
    layer, diff_id = write_layer(path, io.BytesIO(_root_folder(program)))
    config = {
        "architecture": architecture_of(program),
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "created": CREATED,
        "history": [{"created": CREATED, "created_by": "busybox"}],
    }
    return write_layout(path, encode(config), [layer])


def architecture_of(program: bytes) -> str:
    """The processor that an ELF *program* runs on, as images spell it; ``amd64`` where that is not known."""
    order = ">" if program[5:6] == b"\x02" else "<"
    (machine,) = struct.unpack_from(f"{order}H", program, 18)
    return _ARCHITECTURES.get(machine, "amd64")


def _is_static(program: bytes) -> bool:
    if program[:5] != b"\x7fELF\x02":
        return False
    order = ">" if program[5:6] == b"\x02" else "<"
    (offset,) = struct.unpack_from(f"{order}Q", program, 32)
    size, count = struct.unpack_from(f"{order}HH", program, 54)
    kinds = [struct.unpack_from(f"{order}I", program, offset + size * number)[0] for number in range(count)]
    return _DYNAMIC not in kinds


def _root_folder(busybox: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, mode in FOLDERS.items():
            _add(tar, name, tarfile.DIRTYPE, mode)
        _add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, busybox)
        for command in COMMANDS:
            _add(tar, f"bin/{command}", tarfile.SYMTYPE, 0o777, link="busybox")
        for name, content in FILES.items():
            _add(tar, name, tarfile.REGTYPE, 0o644, content)
    return buffer.getvalue()


def _add(
    tar: tarfile.TarFile,
    name: str,
    kind: bytes,
    mode: int,
    content: bytes = b"",
    link: str = "",
) -> None:
    entry = tarfile.TarInfo(name)  # owner, group and time are 0: nothing of this machine gets in
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    tar.addfile(entry, io.BytesIO(content))
