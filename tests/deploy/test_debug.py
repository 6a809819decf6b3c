"""``scripts/debug.sh``, with programs that pretend: what it runs, in which order, and how it says what is missing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deploy.rendering import NAME, ROOT, Rendered
from tests.interop.conftest import program

SCRIPT: Final = ROOT / "scripts/debug.sh"
REPOSITORY: Final = "registry.test/me/imgbuilder"
BASICS: Final = ("bash", "cat", "date", "dirname", "env", "grep", "mktemp", "rm", "tee")
PRETENDING: Final = """\
#!/bin/sh
# Writes down how it was called, and does what the test wrote into NAME.COMMAND, where there is such a file.
name=${0##*/}
echo "$name $*" >> "${0%/*}/calls"
for word in "$@"; do
  if [ -e "${0%/*}/$name.$word" ]; then . "${0%/*}/$name.$word"; fi
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One on which there are only some programs, all of them pretending."""

    folder: Path

    def has(self, *names: str) -> None:
        """Put programs there."""
        for name in names:
            path = self.folder / name
            path.write_text(PRETENDING)
            path.chmod(0o755)

    def when(self, name: str, command: str, script: str) -> None:
        """What a program does that is called with *command*."""
        (self.folder / f"{name}.{command}").write_text(script)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the script there."""
        return subprocess.run(
            [str(SCRIPT), *arguments],
            env={"PATH": str(self.folder), "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def calls(self) -> list[str]:
        """What was called, in order, less what only looks."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split()[1] not in {"info", "config"}]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One with a shell and little else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in BASICS:
        path = shutil.which(name)
        assert path is not None
        (folder / name).symlink_to(path)
    machine = Machine(folder=folder)
    machine.when("kubectl", "current-context", "echo minikube")
    machine.when("kubectl", "get", f"echo '{NAME} /component={NAME},'")
    return machine


def steps(output: str) -> list[str]:
    """The steps that were shown, by program and command."""
    words = [line[2:].split() for line in output.splitlines() if line.startswith("+ ")]
    return [" ".join(word for word in line[:3] if not word.startswith("-")) for line in words]


ALL_STEPS: Final = (
    *("kubectl get deployment", "docker build", f"docker push {REPOSITORY}:t1"),
    *("kubectl patch deployment", "kubectl rollout status", "kubectl logs"),
)


def patch_of(output: str) -> dict[str, Any]:
    """What the deployment is changed to."""
    found = re.search(r"--patch '?(\{.*\})'?", output)
    assert found is not None
    template: dict[str, Any] = json.loads(found[1])["spec"]["template"]
    return template


def test_a_dry_run_shows_every_step_and_does_none(machine: Machine) -> None:
    """In the order in which they would be done."""
    machine.has("docker", "kubectl")
    done = machine.run("--dry-run", "--tag", "t1", REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert steps(done.stdout) == list(ALL_STEPS)
    assert f"image {REPOSITORY}:t1, with docker; deployment {NAME} of context minikube" in done.stdout
    assert machine.calls() == []


def test_what_is_shown_is_what_is_done(machine: Machine) -> None:
    """Each step of the dry run is called, with the same words."""
    machine.has("docker", "kubectl")
    done = machine.run("--tag", "t1", REPOSITORY)
    assert done.returncode == 0, done.stderr
    shown = [line[2:].replace("'", "") for line in done.stdout.splitlines() if line.startswith("+ ")]

    def without_time(lines: Sequence[str]) -> list[str]:
        return [re.sub(r"\d{4}-\S+Z", "TIME", line) for line in lines]

    assert without_time(machine.calls()) == without_time(shown)
    assert len(shown) == len(ALL_STEPS)


def test_the_deployment_gets_the_image_in_one_change(machine: Machine, rendered: Rendered) -> None:
    """Under the container's name, with the arguments that it has and -v; restarted in any case."""
    machine.has("docker", "kubectl")
    template = patch_of(machine.run("--tag", "t1", REPOSITORY).stdout)
    assert "kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"]
    (container,) = template["spec"]["containers"]
    assert rendered.one("Deployment")["metadata"]["name"] == NAME
    assert container["name"] in rendered.containers
    assert container["image"] == f"{REPOSITORY}:t1"
    assert container["args"] == [*rendered.service["args"], "--verbose"]
    template = patch_of(machine.run("--no-verbose", REPOSITORY).stdout)
    assert template["spec"]["containers"][0]["args"] == rendered.service["args"]


def test_every_option_reaches_what_it_is_for(machine: Machine, tmp_path: Path) -> None:
    """Also the short ones."""
    machine.has("docker", "podman", "kubectl")
    pip_conf = tmp_path / "pip.conf"
    pip_conf.touch()
    options = [
        "-n",
        "builders",
        "-c",
        "other",
        "-d",
        "builder",
        "-t",
        "t2",
        "-p",
        "linux/arm64",
        "-b",
        "podman",
    ]
    more = ["--base", "python:3.12-slim", "--pip-conf", str(pip_conf), "--plain-http", "--no-follow"]
    done = machine.run(*options, *more, REPOSITORY)
    assert done.returncode == 0, done.stderr
    look, build, push, patch, status = machine.calls()
    assert look.startswith("kubectl --context other --namespace builders get deployment builder --output ")
    assert build == (
        f"podman build --platform linux/arm64 --tag {REPOSITORY}:t2 --build-arg PYTHON_IMAGE=python:3.12-slim"
        f" --secret id=pip.conf,src={pip_conf} ."
    )
    assert push == f"podman push --tls-verify=false {REPOSITORY}:t2"
    assert patch.startswith("kubectl --context other --namespace builders patch deployment builder ")
    assert status.endswith("rollout status deployment/builder --timeout 5m")


def test_another_deployment(machine: Machine) -> None:
    """Is changed, and followed, by the names and labels that it has itself."""
    machine.has("docker", "kubectl")
    machine.when("kubectl", "get", "echo 'builder /app.test/name=builder,tier=two,'")
    done = machine.run("--deployment", "other", REPOSITORY)
    assert done.returncode == 0, done.stderr
    (container,) = patch_of(done.stdout)["spec"]["containers"]
    assert container["name"] == "builder"
    logs = machine.calls()[-1]
    assert "logs --follow --selector app.test/name=builder,tier=two --container builder " in logs


@pytest.mark.parametrize("containers", [f"sidecar {NAME}", f"{NAME} sidecar", NAME])
def test_the_container_among_others(machine: Machine, containers: str) -> None:
    """Is the one of that name."""
    machine.has("docker", "kubectl")
    machine.when("kubectl", "get", f"echo '{containers} /component={NAME},'")
    (container,) = patch_of(machine.run(REPOSITORY).stdout)["spec"]["containers"]
    assert container["name"] == NAME


def test_containers_that_could_each_be_it(machine: Machine) -> None:
    """Are not guessed among: a wrong one would lose its image."""
    machine.has("docker", "kubectl")
    machine.when("kubectl", "get", "echo 'one two /component=x,'")
    check_refusal(machine, [REPOSITORY], 1, "has several containers, and none is called", ": one two")
    assert len(machine.calls()) == 1


@pytest.mark.parametrize(
    ("there", "broken", "chosen"),
    [
        (["docker", "podman", "buildah"], [], "docker"),
        (["docker", "podman", "buildah"], ["docker"], "podman"),
        (["docker", "podman", "buildah"], ["docker", "podman"], "buildah"),
        (["buildah"], [], "buildah"),
    ],
)
def test_the_first_builder_that_works_is_taken(
    machine: Machine, there: list[str], broken: list[str], chosen: str
) -> None:
    """A docker without its daemon does not."""
    machine.has("kubectl", *there)
    for name in broken:
        machine.when(name, "info", "exit 1")
    done = machine.run("--dry-run", REPOSITORY)
    assert f", with {chosen};" in done.stdout


def test_without_a_builder(machine: Machine) -> None:
    """It says which would do."""
    machine.has("kubectl", "docker")
    machine.when("docker", "info", "exit 1")
    check_refusal(machine, [REPOSITORY], 1, "no builder: install docker, podman or buildah")


def test_without_kubectl(machine: Machine) -> None:
    """Found out before anything is built."""
    machine.has("docker")
    check_refusal(machine, [REPOSITORY], 1, "kubectl is not installed")


def test_without_a_context(machine: Machine) -> None:
    """The cluster is never guessed."""
    machine.has("docker", "kubectl")
    machine.when("kubectl", "current-context", "exit 1")
    check_refusal(machine, [REPOSITORY], 1, "no current context")


def test_without_the_deployment(machine: Machine) -> None:
    """Found out before anything is built, in kubectl's own words."""
    machine.has("docker", "kubectl")
    machine.when("kubectl", "get", "echo 'Error from server (NotFound)' >&2; exit 1")
    check_refusal(machine, [REPOSITORY], 1, "can't be read: Error from server (NotFound)")
    assert len(machine.calls()) == 1


@pytest.mark.parametrize("words", ["unauthorized: authentication required", "denied: requested access"])
def test_who_is_not_logged_in_is_told_how(machine: Machine, words: str) -> None:
    """The builder's own words are shown, too; nothing in the cluster was changed."""
    machine.has("docker", "kubectl")
    machine.when("docker", "push", f"echo '{words}' >&2; exit 1")
    done = check_refusal(
        machine, [REPOSITORY], 1, "not logged in to registry.test", ": docker login registry.test"
    )
    assert words in done.stdout
    assert not [call for call in machine.calls() if "patch" in call]


@pytest.mark.parametrize(
    ("name", "command", "message"),
    [
        ("docker", "build", "the image could not be built"),
        ("docker", "push", "the image could not be pushed"),
        ("kubectl", "patch", "the deployment could not be changed"),
        ("kubectl", "rollout", "the deployment does not come up"),
    ],
)
def test_a_step_that_fails_is_the_last(machine: Machine, name: str, command: str, message: str) -> None:
    """And is named."""
    machine.has("docker", "kubectl")
    machine.when(name, command, "exit 3")
    check_refusal(machine, [REPOSITORY], 1, message)
    assert machine.calls()[-1].startswith(f"{name} {command}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no repository was given"),
        (["--tag"], "--tag needs a value"),
        (["--colour", REPOSITORY], "unknown option --colour"),
        ([REPOSITORY, "b"], "more than one repository"),
        ([f"{REPOSITORY}:1"], "has a tag"),
        ([f"{REPOSITORY}@sha256:1"], "has a digest"),
        (["-b", "kaniko", REPOSITORY], "unknown builder kaniko"),
        (['a"b'], "is no name of an image"),
    ],
)
def test_a_wrong_command_line(machine: Machine, arguments: list[str], message: str) -> None:
    """One line, and where to read on."""
    machine.has("docker", "kubectl")
    check_refusal(machine, arguments, 2, message, "(see scripts/debug.sh --help)")
    assert machine.calls() == []


def test_a_builder_that_was_asked_for_has_to_work(machine: Machine) -> None:
    """No other is taken."""
    machine.has("docker", "kubectl")
    check_refusal(machine, ["-b", "podman", REPOSITORY], 1, "podman does not work here")


def test_a_pip_conf_has_to_be_there(machine: Machine) -> None:
    """Builders would say it less well."""
    machine.has("docker", "kubectl")
    check_refusal(machine, ["--pip-conf", "/nowhere", REPOSITORY], 1, "/nowhere can't be read")


def check_refusal(
    machine: Machine, arguments: Sequence[str], status: int, *words: str
) -> subprocess.CompletedProcess[str]:
    """It ends with *status*, and one line with *words*."""
    done = machine.run(*arguments)
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.startswith("debug.sh: ")
    for part in words:
        assert part in line
    return done


def test_help_names_every_option(machine: Machine) -> None:
    """It needs no program."""
    done = machine.run("--help")
    assert done.returncode == 0
    options = set(re.findall(r"^ +(?:(?:-\w|--[a-z-]+)(?: \| )?)+\)", SCRIPT.read_text(), re.MULTILINE))
    names = {name for option in options for name in re.findall(r"--?[a-z-]+", option)}
    assert len(names) > 15
    for name in names:
        assert re.search(rf"(?<!\S){name}\b", done.stdout), name


def test_scripts_are_clean() -> None:
    """As shellcheck sees the ones of this area."""
    scripts = [SCRIPT, ROOT / "scripts/test-programs.sh"]
    command = [program("shellcheck"), *map(str, scripts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
