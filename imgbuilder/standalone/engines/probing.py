"""The tiny build by which an engine shows that it works here: one file, and one program that is run.

The program is written here byte by byte, so that nothing is needed from a network or from this machine.
"""

from __future__ import annotations

import platform
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from imgbuilder.standalone.engines.protocol import BuildRequest

PROBE_MEMORY: Final = 64 * 1024**2

_EXIT: Final = {
    # exit(0), as the processor takes it, and the processor's number in ELF
    "x86_64": (62, bytes.fromhex("31ffb83c0000000f05")),
    "aarch64": (183, bytes.fromhex("000080d2a80b80d2010000d4")),
}
_NAMES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
_ADDRESS: Final = 0x400000
_HEADERS: Final = 64 + 56
"""The sizes of an ELF header and of one program header."""


@contextmanager
def probe_request(
    folder: Path,
    *,
    machine: str | None = None,
    memory: int | None = None,
) -> Iterator[BuildRequest]:
    """A build of next to nothing, in a new folder below *folder* that is gone afterwards.

    :param machine: the processor that the engine builds for, as the kernel or images spell it; this
        machine's if not given. For one that is not known here the build runs nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="probe-", dir=folder))
    try:
        context, scratch = root / "context", root / "scratch"
        context.mkdir()
        scratch.mkdir()
        program = exit_program(machine or platform.machine())
        (context / "probe").write_bytes(program or b"")
        (context / "probe").chmod(0o755)
        # each probe builds something new: a layer from a cache would prove nothing
        (context / "once").write_text(root.name)
        lines = ["FROM scratch", "COPY probe once /", *(['RUN ["/probe"]'] if program else ())]
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        yield BuildRequest(
            build_id=root.name,
            context=context,
            dockerfile=context / "Dockerfile",
            scratch=scratch,
            network="none",
            memory=memory,
            cpus=0.5 if memory else None,
        )
    finally:
        shutil.rmtree(root, ignore_errors=True)


def exit_program(machine: str) -> bytes | None:
    """A program for Linux that ends at once with status 0, or None for a processor not known here."""
    known = _EXIT.get(_NAMES.get(machine.lower(), machine.lower()))
    if known is None:
        return None
    number, code = known
    size = _HEADERS + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian
        *(2, number, 1, _ADDRESS + _HEADERS),  # an executable, and where it begins
        *(64, 0, 0),  # the program header follows; there are no sections
        *(64, 56, 1, 64, 0, 0),
    )
    # one segment: this whole file, readable and executable
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
    return header + segment + code
