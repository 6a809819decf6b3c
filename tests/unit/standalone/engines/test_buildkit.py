"""BuildKit, with a client that only pretends: how the service is found, and what is made of what it says."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.standalone.engines.buildkit import BuildKitEngine, known_addresses
from imgbuilder.standalone.engines.progress import ProgressText
from imgbuilder.standalone.engines.protocol import (
    BuildFailedError,
    BuildRequest,
    Capabilities,
    EngineError,
    EngineSettings,
    Unavailable,
)
from imgbuilder.standalone.processes import Tail
from tests.unit.standalone.engines import images
from tests.unit.standalone.engines.conftest import PASSWORD
from tests.unit.standalone.engines.programs import Programs, auths

ADDRESS = "tcp://127.0.0.1:1234"


class BuildKit:
    """A client that always finds its service."""

    def __init__(self, programs: Programs, folder: Path) -> None:
        self.programs = programs
        self.layout = images.layout(folder / "layout")
        self.has()

    def has(self, script: str = "") -> None:
        """Install the client, which does *script* before it builds."""
        text = f"""
case "$3" in debug) echo "BuildKit:   github.com/moby/buildkit v0.34.2 abc"; exit 0 ;; esac
{script}
cp -r {self.layout.path} "$destination"
"""
        self.programs.add("buildctl", text)


@pytest.fixture
def buildkit(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildKit:
    """At an address that the environment tells."""
    monkeypatch.setenv("BUILDKIT_HOST", ADDRESS)
    return BuildKit(programs, tmp_path)


# --- finding it ---


def test_the_address_is_told_or_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says counts; else there may be sockets."""
    monkeypatch.delenv("BUILDKIT_HOST", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    before = known_addresses()
    socket = tmp_path / "buildkit" / "buildkitd.sock"
    socket.parent.mkdir()
    socket.touch()
    assert known_addresses() == [f"unix://{socket}", *before]
    monkeypatch.setenv("BUILDKIT_HOST", ADDRESS)
    assert known_addresses() == [ADDRESS]


async def test_a_service_that_builds_is_an_engine(buildkit: BuildKit, settings: EngineSettings) -> None:
    """And tells its version."""
    found = await BuildKitEngine(settings).probe()
    assert isinstance(found, Capabilities)
    assert (found.name, found.version, found.limits) == ("buildkit", "0.34.2", False)
    assert all(call[1:3] == ["--addr", ADDRESS] for call in buildkit.programs.calls)


async def test_others_are_none(
    programs: Programs, settings: EngineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No service, no client, no answer, no build."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("imgbuilder.standalone.engines.buildkit.known_addresses", list)
    engine = BuildKitEngine(dataclasses.replace(settings, probe_limit=0.5))
    reasons = [await engine.probe()]
    monkeypatch.setattr("imgbuilder.standalone.engines.buildkit.known_addresses", lambda: [ADDRESS])
    reasons.append(await engine.probe())
    for script in [
        "echo 'error: failed to call info: connection error: desc = x' >&2; exit 1",
        "exit 1",
        'case "$3" in debug) exit 0 ;; esac; echo "error: failed to solve: no" >&2; exit 1',
        "exec sleep 60",
    ]:
        programs.add("buildctl", script)
        reasons.append(await engine.probe())
    assert [found.reason for found in reasons if isinstance(found, Unavailable)] == [
        "no buildkitd is known to run",
        f"{ADDRESS}: buildctl is not installed",
        f"{ADDRESS}: failed to call info: connection error: desc = x",
        f"{ADDRESS}: it does not say why",
        f"{ADDRESS}: failed to solve: no",
        f"{ADDRESS}: takes too long to answer",
    ]
    with pytest.raises(EngineError, match="was not found to work"):
        await engine.build(None, Tail())  # type: ignore[arg-type]  # not looked at


# --- building ---


async def test_is_told_what_matters(
    buildkit: BuildKit, settings: EngineSettings, request_: BuildRequest, tmp_path: Path
) -> None:
    """With credentials that are only this build's."""
    engine = BuildKitEngine(settings)
    await engine.probe()
    seen = tmp_path / "seen"
    buildkit.has(script=f'cp "$DOCKER_CONFIG/config.json" {seen}')
    layout = await engine.build(dataclasses.replace(request_, network="none", no_cache=True), Tail())
    assert layout == dataclasses.replace(buildkit.layout, path=request_.scratch / "layout")
    call = buildkit.programs.calls[-1]
    assert {
        f"context={request_.context}",
        f"dockerfile={request_.dockerfile.parent}",
        "filename=Dockerfile",
        "image-resolve-mode=pull",
        "force-network-mode=none",
        "--no-cache",
    } <= set(call)
    assert auths(seen.read_text())["registry.example"] == {"auth": "dXNlcjpwYXNzLTdmM2E="}
    assert not [word for call in buildkit.programs.calls for word in call if PASSWORD in word]
    assert [entry.name for entry in request_.scratch.iterdir()] == ["layout"]


async def test_a_failing_run_is_the_authors_fault(
    buildkit: BuildKit, settings: EngineSettings, request_: BuildRequest
) -> None:
    """Its output is passed on, and nothing is left."""
    engine = BuildKitEngine(settings)
    await engine.probe()
    started = {"digest": "a", "name": "[1/1] RUN x", "started": "2026-01-01T00:00:00Z"}
    said_by_run = {"vertex": "a", "data": base64.b64encode(b"oops\n").decode()}
    events = [json.dumps({"vertexes": [started]}), json.dumps({"logs": [said_by_run]})]
    buildkit.has(
        script=f"""
mkdir "$destination"
cat >&2 <<'END'
{events[0]}
{events[1]}
error: failed to solve: process "x" did not complete successfully: exit code: 7
END
exit 1
""",
    )
    said = Tail()
    with pytest.raises(BuildFailedError) as failed:
        await engine.build(request_, said)
    assert failed.value.exit_status == 7
    assert said.text().startswith("#1 [1/1] RUN x\noops\nerror: failed")
    assert list(request_.scratch.iterdir()) == []


async def test_sweeping_empties_the_folder_of_probes(buildkit: BuildKit, settings: EngineSettings) -> None:
    """The service has tidied up itself."""
    left = settings.data_dir / "engines" / "buildkit" / "probes" / "probe-x"
    left.mkdir(parents=True)
    await BuildKitEngine(settings).sweep()
    assert not left.exists()


# --- what it says ---


def event(**parts: object) -> bytes:
    """A line of progress."""
    return json.dumps(parts).encode() + b"\n"


def vertex(key: str, **more: object) -> dict[str, object]:
    """A step."""
    return {"digest": key, "name": f"step {key}", **more}


START, LATER = "2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:01.623456789Z"


def said(key: str, data: bytes) -> dict[str, str]:
    """What a step says."""
    return {"vertex": key, "data": base64.b64encode(data).decode()}


EVENTS = [
    (event(vertexes=[vertex("a"), vertex("b")]), ""),
    (event(vertexes=[vertex("a", started=START)]), "#1 step a\n"),
    (event(vertexes=[vertex("b", started=START)]), "#2 step b\n"),
    (event(logs=[said("b", b"50%\r")]), "50%\r"),
    (event(logs=[said("b", b"100%")]), "100%"),
    (event(logs=[said("a", b"hello\n")]), "\n#1 step a\nhello\n"),
    (event(logs=[said("a", b"again\n")]), "again\n"),
    (event(vertexes=[vertex("a", started=START, completed=LATER)]), "#1 DONE 1.5s\n"),
    (event(vertexes=[vertex("a", started=START, completed=LATER)]), ""),
    (event(vertexes=[vertex("b", started=START, completed=LATER, error="no\nway")]), "#2 ERROR: no\nway\n"),
    (event(vertexes=[vertex("c", cached=True, completed=LATER, started=LATER)]), "#3 step c\n#3 CACHED\n"),
    (
        event(statuses=[{"id": "sha256:x", "vertex": "a", "total": 1_500_000, "completed": LATER}]),
        "#1 sha256:x 1.5 MB done\n",
    ),
    (event(statuses=[{"id": "sha256:x", "vertex": "a", "current": 10}]), ""),
    (event(warnings=[{"short": base64.b64encode(b"careful").decode()}]), "WARNING: careful\n"),
    (b"plain text\n", "plain text\n"),
    (b"\n", ""),
    (b"[1]\n", "[1]\n"),
    (event(vertexes=[{"name": "no digest"}]), ""),
    (event(logs=[{"vertex": "a", "data": "not base64!"}]), ""),
    (event(something=1), ""),
]


def test_progress_becomes_text() -> None:
    """Steps with numbers, output as it is, and nothing twice."""
    text = ProgressText()
    for line, expected in EVENTS:
        assert text.feed(line).decode() == expected, line


def test_internal_steps_are_not_reported_done() -> None:
    """Nobody waits for them."""
    text = ProgressText()
    step = {"digest": "a", "name": "[internal] load metadata", "started": START, "completed": LATER}
    assert text.feed(event(vertexes=[step])) == b"#1 [internal] load metadata\n"


def test_an_unfinished_line_is_told_at_the_end() -> None:
    """As an error that a client dies of may be."""
    text = ProgressText()
    assert text.feed(b"error: oops") == b""
    assert text.finish() == b"error: oops\n"
    assert text.finish() == b""


@given(st.lists(st.integers(min_value=1, max_value=400)))
def test_progress_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    """Pieces of lines, or many lines at once."""
    whole = b"".join(line for line, _ in EVENTS)
    text, pieces, position = ProgressText(), b"", 0
    for length in cuts:
        pieces += text.feed(whole[position : position + length])
        position += length
    pieces += text.feed(whole[position:]) + text.finish()
    assert pieces.decode() == "".join(expected for _, expected in EVENTS)
