"""Kubeconfigs: who we are to which cluster, as kubectl finds it out.

Reads files, and runs the program that a kubeconfig names for credentials. Asks the cluster nothing.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
import anyio.to_thread
import yaml  # type: ignore[import-untyped]  # only its error is needed
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.kube_config import KubeConfigLoader, KubeConfigMerger

from imgbuilder.kube.errors import KubeconfigError, NoSuchContextError, NoSuchKubeconfigError
from imgbuilder.kube.programs import ask_program

# It repeats what it raises, and shows the contents of secrets at its debug level.
logging.getLogger("kubernetes_asyncio").setLevel(logging.CRITICAL)

LOGIN_DEADLINE: Final = 180.0
"""Seconds for a program that gets credentials: some ask the user to open a page, and to enter a code there."""

MISSING_KEY: Final = re.compile(r"Expected (?:key (\S+) in|object with name (\S+) in)")
SAYABLE: Final = re.compile(r"exec: (?!malformed request)|oidc: |File does not exists: ")
"""How those of the library's messages begin that do not show the kubeconfig's contents."""

NOT_A_KUBECONFIG: Final = (ValueError, TypeError, KeyError, AttributeError, AssertionError)
"""What the library raises where a file is not built as it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A way into a cluster.

    :ivar configuration: what the client library needs: the server and our credentials.
    :ivar path: the kubeconfig, or several as ``KUBECONFIG`` lists them.
    :ivar context: the name of the context.
    :ivar namespace: the context's, or ``default``.
    """

    configuration: Configuration
    path: str
    context: str
    namespace: str

    @property
    def server(self) -> str:
        """The address of the API server."""
        return str(self.configuration.host)


async def load_access(*, context: str | None = None, kubeconfig: Path | None = None) -> Access:
    """The way into the cluster of *context*; None is for the current one.

    :param kubeconfig: in the place of those in ``KUBECONFIG``, or of ``~/.kube/config``.
    :raises KubeconfigError: if there is no such context, or what it needs can't be used.
    """
    paths = str(kubeconfig or os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    merged = await anyio.to_thread.run_sync(_merged, paths)
    name = context or str(merged.value.get("current-context") or "")
    try:
        namespaces = _namespaces(merged)
    except NOT_A_KUBECONFIG as error:
        raise KubeconfigError(paths, "is not a kubeconfig") from error
    if name not in namespaces:
        raise NoSuchContextError(paths, name, sorted(namespaces))
    configuration = Configuration()
    # Python 3.13 is stricter with certificates than kubectl, and than those who make clusters.
    configuration.disable_strict_ssl_verification = True
    configuration.client_side_validation = False
    try:
        with anyio.fail_after(LOGIN_DEADLINE):
            loader = _Loader(merged, active_context=name, config_base_path=None)
            await loader.load_and_set(configuration)
    except TimeoutError as error:
        fault = (
            f"no credentials for context {name} in {LOGIN_DEADLINE:.0f} s: log in with kubectl, and try again"
        )
        raise KubeconfigError(paths, fault) from error
    except ConfigException as error:
        raise KubeconfigError(paths, _without_contents(name, str(error))) from error
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        raise KubeconfigError(paths, f"the credentials of context {name} can't be had: {what}") from error
    except (aiohttp.ClientError, *NOT_A_KUBECONFIG) as error:
        raise KubeconfigError(paths, f"the credentials of context {name} can't be used") from error
    return Access(
        configuration=configuration,
        path=paths,
        context=name,
        namespace=namespaces[name],
    )


class _Loader(KubeConfigLoader):
    """The library's, but for how programs are run: it would leave them running, and not show what they say."""

    async def load_from_exec_plugin(self) -> bool:
        """Have the program's answer taken for what the kubeconfig says of the user."""
        assert self._user is not None  # noqa: S101  # it is asked for those that name a program
        self._user.value |= await ask_program(self._user["exec"])
        return False  # it goes on with what stands there now


def _merged(paths: str) -> Any:
    """All of *paths* in one, in the form that the library has for it."""
    try:
        merged = KubeConfigMerger(paths).config
    except OSError as error:
        raise KubeconfigError(paths, f"cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, *NOT_A_KUBECONFIG) as error:
        # Without the parser's words, which may repeat what stands there.
        raise KubeconfigError(paths, "is not a kubeconfig") from error
    if merged is None:
        raise NoSuchKubeconfigError(paths)
    return merged


def _namespaces(merged: Any) -> dict[str, str]:
    """The namespace of each context, by its name."""
    contexts = [entry.value for entry in merged.value["contexts"]]
    return {
        str(entry["name"]): str((entry.get("context") or {}).get("namespace") or "default")
        for entry in contexts
    }


def _without_contents(context: str, message: str) -> str:
    """What the library says went wrong, of which no part comes from the kubeconfig's secrets."""
    if SAYABLE.match(message):
        return f"context {context}: {' '.join(message.split())[:300]}"
    missing = MISSING_KEY.search(message)
    what = f": {missing[1] or missing[2]} is missing" if missing else ""
    return f"context {context} is not complete{what}"
