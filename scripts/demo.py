"""The demo: real builds on this machine, watched. ``make demo`` runs it.

Starts ``imgbuilder standalone`` on free ports, makes a base image and a git repository on the spot, builds,
and ends with nothing left running. Needs no network.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import structlog
from grpclib.client import Channel

from imgbuilder.core.references import parse_reference
from imgbuilder.pb.builder import (
    BuildInfo,
    BuildRequest,
    BuildResponse,
    BuildSource,
    BuildSourceDockerfile,
    BuildStatus,
    ImageBuilderStub,
    ListBuildsRequest,
    LogsRequest,
)
from imgbuilder.pb.contentservice import CloneTargetMode, GitInitializer, WorkspaceInitializer
from imgbuilder.registry.push import push_layout
from imgbuilder.registry.session import RegistrySession
from imgbuilder.registry.settings import RegistrySettings
from imgbuilder.registry.stores import fetch_manifest
from imgbuilder.runtime.grpc.channel import open_channel
from imgbuilder.standalone.demo_image import write_demo_image
from imgbuilder.standalone.settings import default_platform
from imgbuilder.telemetry.metrics import Metrics

DOCKERFILE = """\
FROM {base}
RUN echo "compiling on $(uname -m)" && seq 1 3 | while read part; do echo "  part $part"; sleep 0.3; done
COPY greeting.txt /srv/greeting.txt
RUN sed -i "s/world/{name}/" /srv/greeting.txt && cat /srv/greeting.txt
ENV GREETING=/srv/greeting.txt
"""
CLIENTS = 10
BEGIN, END = "<!-- begin of the demo's transcript -->", "<!-- end of the demo's transcript -->"
PORTS = ("--image-builder-port", "--wsman-port", "--supervisor-port", "--registry-port")


@dataclass(frozen=True)
class Repository:
    """The git repository that is built."""

    path: Path

    def commit(self, dockerfile: str) -> str:
        """Commit a Dockerfile and what it copies; the commit."""
        self.path.mkdir(exist_ok=True)
        (self.path / "Dockerfile").write_text(dockerfile)
        (self.path / "greeting.txt").write_text("hello, world\n")
        self._git("init", "--quiet", "--initial-branch=main")
        self._git("add", "--all")
        self._git(
            "-c", "user.name=demo", "-c", "user.email=demo@example.com", "commit", "--quiet", "-m", "demo"
        )
        return self._git("rev-parse", "HEAD")

    def source(self, revision: str) -> BuildSource:
        """What to ask for to have *revision* built."""
        git = GitInitializer(
            remote_uri=f"file://{self.path}",
            clone_taget=revision,
            target_mode=CloneTargetMode.REMOTE_COMMIT,
        )
        return BuildSource(
            file=BuildSourceDockerfile(
                source=WorkspaceInitializer(git=git),
                dockerfile_path="Dockerfile",
                dockerfile_version=revision,
            ),
        )

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


said: list[str] = []
"""All that the user was told."""


def say(text: str) -> None:
    """Tell the user."""
    said.extend(text.split("\n"))
    print(text, flush=True)


def title(number: int, text: str) -> None:
    """Begin a part of the demo."""
    say(f"\n{number}. {text}\n")


@contextmanager
def standalone(data_dir: Path, log: Path, options: list[str]) -> Iterator[dict[str, str]]:
    """``imgbuilder standalone`` inside the block; where everything is."""
    program = str(Path(sys.executable).with_name("imgbuilder"))
    ports = [word for port in PORTS for word in (port, "0")]
    command = [program, "standalone", "--data-dir", str(data_dir), "--allow-file-urls", *ports, *options]
    say(f"$ imgbuilder standalone --allow-file-urls {' '.join([*ports, *options])}")
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            for line in process.stdout or ():
                say(f"  {line}".rstrip())
                if line.startswith("Stop it"):
                    break
            if process.poll() is not None:
                raise RuntimeError("imgbuilder standalone did not start")
            yield json.loads((data_dir / "addresses.json").read_bytes())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Channel]:
    """A connection to the image builder."""
    host, _, port = address.rpartition(":")
    channel = open_channel(host, int(port))
    try:
        yield channel
    finally:
        channel.close()


@asynccontextmanager
async def registry_session(host: str) -> AsyncIterator[RegistrySession]:
    """A client of the registry."""
    async with RegistrySession(RegistrySettings(insecure=frozenset({host})), metrics=Metrics()) as session:
        yield session


async def push_base(host: str, folder: Path) -> str:
    """Make a base image of this machine's busybox, and push it; its reference."""
    layout = write_demo_image(folder)
    target = parse_reference(f"{host}/busybox:latest")
    async with registry_session(host) as session:
        await push_layout(session, layout, target, credentials=None, progress=lambda _: None)
    return str(target)


async def read_file(ref: str, path: str) -> str:
    """The file *path* of the image *ref*, out of the registry."""
    reference = parse_reference(ref)
    async with registry_session(reference.domain) as session:
        repository = session.repository(reference, None)
        manifest = await fetch_manifest(session, repository, reference, default_platform())
        for layer in reversed(json.loads(manifest.body)["layers"]):
            answer = await session.client.request(
                repository.reading(),
                "GET",
                f"{reference.path}/blobs/{layer['digest']}",
                limit=100 << 20,
            )
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(answer.body))) as archive:
                if path in archive.getnames() and (file := archive.extractfile(path)):
                    return file.read().decode()
    raise RuntimeError(f"the image has no {path}")


async def build(stub: ImageBuilderStub, source: BuildSource) -> list[BuildResponse]:
    """Have *source* built; all that is told of it."""
    request = BuildRequest(source=source, triggered_by="demo")
    return [response async for response in stub.build(request)]


async def watch_build(stub: ImageBuilderStub, source: BuildSource) -> BuildResponse:
    """Have *source* built, and show status and output as they come; how it ended."""
    last: BuildResponse | None = None
    async with anyio.create_task_group() as group:
        request = BuildRequest(source=source, triggered_by="demo")
        async for response in stub.build(request):
            if last is None and response.info is not None:
                group.start_soon(show_log, stub, response.info.build_id)
            if last is None or (response.status, response.message) != (last.status, last.message):
                say(f"  [{response.status.name}] {response.message}")
            last = response
    if last is None:
        raise RuntimeError("the build was not told of")
    return last


async def show_log(stub: ImageBuilderStub, build_id: str) -> None:
    """Show the output of a build until it has ended."""
    rest = b""
    async for response in stub.logs(LogsRequest(build_id=build_id)):
        *lines, rest = (rest + response.content).split(b"\n")
        for line in lines:
            shown = line.decode(errors="replace").rstrip().rpartition("\r")[2]  # of progress, how it ended
            say(f"  | {shown}")


async def ask_at_once(stub: ImageBuilderStub, source: BuildSource) -> None:
    """Have many clients ask for the same at once, list the builds meanwhile, and show what became of it."""
    ends: list[BuildResponse] = []

    async def client() -> None:
        ends.append((await build(stub, source))[-1])

    async with anyio.create_task_group() as group:
        for _ in range(CLIENTS):
            group.start_soon(client)
        builds: list[BuildInfo] = []
        while not builds and not ends:
            await anyio.sleep(0.02)
            builds = (await stub.list_builds(ListBuildsRequest())).builds
        say("  ListBuilds:")
        for info in builds:
            say(f"    {info.status.name}  {info.build_id}  {info.ref[:60]}…")
    succeeded = sum(end.status == BuildStatus.done_success for end in ends)
    builds_made = {end.info.build_id for end in ends if end.info}
    say(f"  {succeeded} of {CLIENTS} clients: done_success; builds: {', '.join(builds_made)}")
    if succeeded < CLIENTS or len(builds_made) != 1:
        raise RuntimeError("that was to be one build, and ten happy clients")


async def show(addresses: dict[str, str], folder: Path) -> None:
    """Everything that is shown while it runs."""
    title(2, "A base image, made of this machine's busybox, and a git repository with a Dockerfile")
    base = await push_base(addresses["registry"], folder / "base")
    repository = Repository(folder / "repository")
    dockerfile = DOCKERFILE.format(base=base, name="imgbuilder")
    source = repository.source(repository.commit(dockerfile))
    for line in dockerfile.splitlines():
        say(f"  {line}")
    async with connected(addresses["imageBuilder"]) as channel:
        stub = ImageBuilderStub(channel)
        title(3, "Build it: status and output as they come")
        end = await watch_build(stub, source)
        if end.status != BuildStatus.done_success:
            raise RuntimeError(f"the build failed: {end.message}")
        title(4, "Ask for the same again: it exists")
        started = time.monotonic()
        (again,) = await build(stub, source)
        say(f"  [{again.status.name}] after {(time.monotonic() - started) * 1000:.0f} ms, without a build")
        title(5, f"Ask for another revision, {CLIENTS} clients at once: one build")
        revision = repository.commit(DOCKERFILE.format(base=base, name="everybody"))
        await ask_at_once(stub, repository.source(revision))
    title(6, "Read a file out of the first image, in the registry")
    say(f"  {end.ref}")
    content = await read_file(end.ref, "srv/greeting.txt")
    say(f"  /srv/greeting.txt: {content.strip()}")
    if content != "hello, imgbuilder\n":
        raise RuntimeError("that is not what the Dockerfile says")


def left_running(folder: Path) -> list[str]:
    """The command lines of processes that have to do with *folder*; none where there is no ``/proc``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and int(process.name) != os.getpid():
            found.append(line)
    return found


def write_transcript(readme: Path, command: str) -> None:
    """Put all that was said between the two marks in *readme*."""
    text = readme.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    transcript = "\n".join(["```console", f"$ {command}", *said, "```"])
    readme.write_text(f"{head}{BEGIN}\n\n{transcript}\n\n{END}{tail}")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", help="what builds the Dockerfile (default: the first that works)")
    parser.add_argument(
        "--transcript", type=Path, metavar="README", help="write what was said into that file"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with everything in it")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    options = ["--engine", arguments.engine] if arguments.engine else []
    folder = Path(tempfile.mkdtemp(prefix="imgbuilder-demo-"))
    log = folder / "imgbuilder.log"
    started = time.monotonic()
    failure: Any = None
    try:
        title(1, "A registry, a workspace manager with a build engine, and the image builder, on free ports")
        with standalone(folder / "data", log, options) as addresses:
            anyio.run(show, addresses, folder)
        title(7, "Stop it")
        left = left_running(folder)
        say("\n".join(left) if left else "  nothing is left running")
        failure = "that was to be nothing" if left else None
    except* (RuntimeError, OSError, subprocess.CalledProcessError) as errors:
        failure = errors.exceptions[0]
    if failure is not None:
        sys.exit(f"the demo failed: {failure}\nits log: {log}")
    if arguments.keep:
        say(f"  everything is in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    say(f"\nThat took {time.monotonic() - started:.0f} s.")
    if arguments.transcript is not None:
        write_transcript(arguments.transcript, "make demo")


if __name__ == "__main__":
    main()
