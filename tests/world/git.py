"""Git repositories, and a server that hands them out as real ones do."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import anyio

from tests.world.registries.httpd import HttpServer, Respond, Seen

SECRET_PATH: Final = "/one-time-secret"


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository in the folder *path*, made when there is none."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.exists():
            self.path.mkdir(parents=True)
            self.git("init", "--quiet", "--initial-branch=main")

    def commit(self, message: str = "change", **files: str) -> str:
        """Commit *files*, a name with ``__`` for ``/`` and its content each; the commit's hash."""
        for name, content in files.items():
            file = self.path / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        """Run git in it; what it answers."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_NAME": "Tester" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "tester@example.com" for who in ("AUTHOR", "COMMITTER")},
        }
        command = ["git", "-C", str(self.path), *arguments]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip()


@dataclass(slots=True)
class Told:
    """A secret, and how often it was asked for: it is told only once."""

    secret: str
    asked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a server lets whom do.

    :ivar users: who may read, name to password; anybody if there are none.
    :ivar redirect: an address that all requests are sent on to.
    :ivar config: settings of the serving git.
    """

    users: Mapping[str, str] = field(default_factory=dict)
    redirect: str = ""
    config: Mapping[str, str] = field(default_factory=dict)


class GitServer(HttpServer):
    """Serves the repositories below a folder over HTTP, with git's own program.

    :ivar told: what is answered at `SECRET_PATH`, once.
    """

    def __init__(self, folder: Path, rules: Rules | None = None, *, secret: str = "") -> None:
        super().__init__()
        self._folder = folder
        self._rules = rules or Rules()
        self.told = Told(secret)

    @property
    def secret_address(self) -> str:
        """Where the secret is told once."""
        return f"{self.url}{SECRET_PATH}"

    async def respond(self, request: Seen) -> Respond:
        """Answer with the secret, or with what git has to say."""
        if request.path == SECRET_PATH:
            self.told.asked += 1
            return (
                Respond(200, {}, f"{self.told.secret}\n".encode()) if self.told.asked == 1 else Respond(404)
            )
        if self._rules.redirect:
            target = f"{self._rules.redirect}{request.path}?{urlencode(request.query, doseq=True)}"
            return Respond(302, {"Location": target})
        if self._rules.users and not self._may_read(request):
            return Respond(401, {"WWW-Authenticate": 'Basic realm="git"'})
        return await self._git(request)

    def _may_read(self, request: Seen) -> bool:
        allowed = {
            base64.b64encode(f"{user}:{password}".encode()).decode()
            for user, password in self._rules.users.items()
        }
        return request.authorization.removeprefix("Basic ") in allowed

    async def _git(self, request: Seen) -> Respond:
        settings = {"safe.directory": "*", **self._rules.config}
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self._folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": urlencode(request.query, doseq=True),
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
            "GIT_CONFIG_COUNT": str(len(settings)),
        }
        for number, (name, value) in enumerate(settings.items()):
            env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        done = await anyio.run_process(["git", "http-backend"], input=request.body, env=env, check=False)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        return Respond(status, headers, body)
