"""What becomes of a Dockerfile: the image, the output, the errors."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from imgbuilder.standalone.engines.protocol import BuildFailedError
from tests.e2e.engines.conftest import PASSWORD, Found, Project
from tests.e2e.engines.traces import command_lines
from tests.world.baseimage import config_of, files_of


async def test_makes_the_image_that_the_dockerfile_describes(project: Project) -> None:
    """Files of the base, of COPY and of RUN are in it, and what its configuration should say."""
    project.write(
        """FROM BASE
        SHELL ["/bin/ash", "-e", "-c"]
        LABEL purpose=test
        ENV COLOUR=green
        WORKDIR /srv
        COPY greeting.txt .
        RUN echo "made by $(id -u)" > made.txt && rm /etc/os-release && echo "RUN speaks"
        HEALTHCHECK CMD true
        USER nobody
        CMD ["cat", "/srv/greeting.txt"]
        """,
        **{"greeting.txt": "hello from the context"},
    )
    request = project.request()
    layout = await project.engine.build(request, project.said)
    files = files_of(layout)
    assert files["/srv/greeting.txt"] == b"hello from the context"
    assert files["/srv/made.txt"] == b"made by 0\n"
    assert "/bin/busybox" in files
    assert "/etc/os-release" not in files
    config = config_of(layout)["config"]
    assert config["Cmd"] == ["cat", "/srv/greeting.txt"]
    assert config["User"] == "nobody"
    assert config["WorkingDir"] == "/srv"
    assert "COLOUR=green" in config["Env"]
    assert config["Labels"]["purpose"] == "test"
    assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert config["Shell"] == ["/bin/ash", "-e", "-c"]
    assert "RUN speaks" in project.said.text
    assert [entry.name for entry in request.scratch.iterdir()] == [layout.path.name]


async def test_builds_stages(project: Project) -> None:
    """Files of one stage get into another, which has none of the rest."""
    project.write(
        """FROM BASE AS build
        RUN mkdir /out && echo built > /out/result && echo huge > /waste
        FROM scratch
        COPY --from=build /out/result /result
        """,
    )
    assert files_of(await project.build()) == {"/result": b"built\n"}


async def test_a_failing_run_tells_its_exit_status(project: Project) -> None:
    """The status is the program's, and its output is in the log."""
    project.write("FROM BASE\nRUN echo oops; exit 7\n")
    with pytest.raises(BuildFailedError) as failed:
        await project.build()
    assert failed.value.exit_status == 7
    assert "oops" in project.said.text


@pytest.mark.parametrize(
    ("dockerfile", "fault"),
    [
        ("FROM BASE\nRUNN echo hello\n", "unknown instruction"),
        ("FROM BASE\nCOPY missing.txt /\n", "missing.txt"),
        ("FROM BASE-nowhere\nRUN true\n", "-nowhere"),
    ],
)
async def test_a_wrong_dockerfile_is_its_authors_fault(project: Project, dockerfile: str, fault: str) -> None:
    """A syntax error, a file that is missing, a base image that is missing: each is named."""
    project.write(dockerfile)
    with pytest.raises(BuildFailedError) as failed:
        await project.build()
    assert failed.value.exit_status > 0
    assert fault in failed.value.fault.lower()


async def test_a_base_image_needs_its_credentials_every_time(project: Project) -> None:
    """What another build pulled is no way around the registry's permissions."""
    project.write("FROM BASE\nRUN true\n")
    await project.build()
    with pytest.raises(BuildFailedError):
        await project.build(pull_auth={})


async def test_steps_are_taken_from_the_cache(project: Project) -> None:
    """The second build runs nothing, says so, and makes the same image; unless the cache is not wanted."""
    project.write("FROM BASE\nRUN echo was $((40+2)) > /run.txt; cat /run.txt\nRUN echo end\n")
    first = await project.build()
    assert "was 42" in project.said.text
    project.said.content.clear()
    second = await project.build()
    assert "was 42" not in project.said.text
    assert "cache" in project.said.text.lower()
    assert second.digest == first.digest or project.engine.name == "docker"  # it writes another date
    await project.build(no_cache=True)
    assert "was 42" in project.said.text


async def test_builds_run_at_the_same_time(project: Project) -> None:
    """Two builds see each other at work."""
    project.write(
        "FROM BASE\nRUN echo at work; sleep 1; echo done\n",
        other=f"FROM {project.base.reference}\nENV PROJECT={project.unique}\n"
        "RUN echo at work too; sleep 1; echo done\n",
    )
    seen: list[str] = []

    async def build(dockerfile: str) -> None:
        await project.build(dockerfile=project.context / dockerfile)
        seen.append(project.said.text)

    async with anyio.create_task_group() as group:
        group.start_soon(build, "Dockerfile")
        group.start_soon(build, "other")
    # when the first ended, the second had begun
    assert "at work\n" in seen[0]
    assert "at work too\n" in seen[0]


async def test_credentials_are_never_on_a_command_line(project: Project) -> None:
    """Nor in the output, nor in the image, nor in the environment of the engine's programs."""
    project.write("FROM BASE\nRUN env; sleep 0.3\n")
    lines: Counter[str] = Counter()
    done = anyio.Event()

    async def watch() -> None:
        while not done.is_set():
            lines.update(line for _, line in command_lines())
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        layout = await project.build()
        done.set()
    assert any(project.folder.name in line for line in lines)  # the engine's program was seen
    secrets = [PASSWORD, project.base.credentials.auth.reveal()]
    assert not [line for line in lines for secret in secrets if secret in line]
    assert not [secret for secret in secrets if secret in project.said.text]
    assert not [file for file in files_of(layout) if "config.json" in file]


async def test_run_steps_can_be_kept_off_the_network(project: Project) -> None:
    """Without network there is the loopback, and nothing else."""
    project.write("FROM BASE\nRUN echo interfaces: $(sed -n 's/ *\\(.*\\):.*/\\1/p' /proc/net/dev)\n")
    await project.build(network="none")
    assert [line for line in project.said.text.splitlines() if line.endswith("interfaces: lo")]


async def test_limits_are_kept_where_they_are_promised(found: Found, project: Project) -> None:
    """A RUN step that takes more memory than it may fails; one that takes less does not."""
    if not found.capabilities.limits:
        pytest.skip(f"{found.engine.name} keeps no limits")
    project.write("FROM BASE\nRUN exec tail /dev/zero\n")
    with pytest.raises(BuildFailedError):
        await project.build(memory=32 * 1024**2, cpus=0.5)
    project.write("FROM BASE\nRUN dd if=/dev/zero of=/dev/null bs=1M count=10\n")
    await project.build(memory=64 * 1024**2, cpus=0.5)


async def test_here_documents_work_or_are_explained(project: Project) -> None:
    """An engine that is too old for them says that it is."""
    project.write("FROM BASE\nRUN <<EOF\necho from a document > /document\nEOF\n")
    outcome = ""
    try:
        outcome = files_of(await project.build())["/document"].decode()
    except BuildFailedError as error:
        outcome = error.fault
    assert outcome == "from a document\n" or "here-documents" in outcome


async def test_a_frontend_is_not_pulled(project: Project) -> None:
    """A syntax line names an image in a registry that is not there, and nobody asks for it."""
    project.write("# syntax=127.0.0.1:1/docker/dockerfile:1\nFROM BASE\nRUN echo fine > /fine\n")
    assert files_of(await project.build())["/fine"] == b"fine\n"
