"""The options that several client commands share, as groups: a command takes a group as one parameter."""

# ruff: noqa: PLC0415  # imported when a command runs, for help to come at once
from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from imgbuilder.cli.lean import import_without_rich
from imgbuilder.cli.options import refuse_without_effect
from imgbuilder.client.errors import InvalidOptionError
from imgbuilder.client.formats import FORMS

if TYPE_CHECKING:
    from imgbuilder.client.sources import Wanted
    from imgbuilder.pb.builder import BuildRegistryAuth

CONNECTION: Final = "Connection"
SOURCE: Final = "What to build"
CREDENTIALS: Final = "Credentials"
KUBE_SERVICE: Final = "image-builder-mk3"
KUBE_PORT: Final = 8080

DEFAULT_HOST: Final = "127.0.0.1:8080"

Output = Annotated[str, typer.Option("--output", "-o", metavar="FORM", help=f"How it is printed: {FORMS}.")]
Timeout = Annotated[
    str,
    typer.Option(
        metavar="DURATION", help="How long an answer may take, such as 30s.", rich_help_panel=CONNECTION
    ),
]


def _option(*names: str, panel: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """Where the image builder is, and how to speak to it."""

    host: Annotated[
        str,
        _option(
            panel=CONNECTION,
            envvar="IMGBUILDER_HOST",
            metavar="HOST:PORT",
            help="Where the image builder is.",
        ),
    ] = DEFAULT_HOST
    tls: Annotated[
        bool, _option("--tls", panel=CONNECTION, help="Use TLS, trusting this machine's authorities.")
    ] = False
    tls_ca: Annotated[
        str,
        _option(
            panel=CONNECTION,
            envvar="IMGBUILDER_TLS_CA",
            metavar="FILE",
            help="Use TLS, trusting the authorities in this file.",
        ),
    ] = ""
    tls_cert: Annotated[
        str,
        _option(
            panel=CONNECTION, envvar="IMGBUILDER_TLS_CERT", metavar="FILE", help="Show this certificate."
        ),
    ] = ""
    tls_key: Annotated[
        str, _option(panel=CONNECTION, envvar="IMGBUILDER_TLS_KEY", metavar="FILE", help="Its key.")
    ] = ""
    tls_server_name: Annotated[
        str,
        _option(panel=CONNECTION, metavar="NAME", help="Whose certificate to expect, instead of the host's."),
    ] = ""
    kube_context: Annotated[
        str,
        _option(
            panel=CONNECTION,
            metavar="CONTEXT",
            help="Reach a service in the cluster of this context, through a port-forward.",
        ),
    ] = ""
    namespace: Annotated[
        str, _option("--namespace", "-n", panel=CONNECTION, metavar="NAME", help="The namespace it is in.")
    ] = ""
    kube_service: Annotated[
        str, _option(panel=CONNECTION, metavar="NAME", help="The service in the cluster.")
    ] = KUBE_SERVICE
    kube_port: Annotated[
        int, _option(panel=CONNECTION, min=1, max=65535, metavar="PORT", help="Its port.")
    ] = KUBE_PORT
    kubeconfig: Annotated[
        Path | None,
        _option(
            panel=CONNECTION,
            metavar="FILE",
            help="Where the context is.",
            show_default="as kubectl has it",
        ),
    ] = None

    @property
    def in_cluster(self) -> bool:
        """Whether it is to be reached through a port-forward."""
        return bool(self.kube_context)

    def check(self, context: typer.Context) -> None:
        """Make sure that all that *context* was given has an effect.

        :raises UsageError: naming an option that has none.
        """
        if self.in_cluster:
            refuse_without_effect(context, {"host"}, "beside --kube-context")
        else:
            of_cluster = {"namespace", "kube_service", "kube_port", "kubeconfig"}
            refuse_without_effect(context, of_cluster, "without --kube-context")

    @property
    def encrypted(self) -> bool:
        """Whether TLS is to be used."""
        return bool(self.tls or self.tls_ca or self.tls_cert or self.tls_key or self.tls_server_name)

    def words(self) -> list[str]:
        """What is to be repeated on another command line that is to reach the same."""
        tls = {
            "--tls-ca": self.tls_ca,
            "--tls-cert": self.tls_cert,
            "--tls-key": self.tls_key,
            "--tls-server-name": self.tls_server_name,
        }
        where = {"--host": "" if self.host == DEFAULT_HOST else self.host}
        if self.in_cluster:
            where = {
                "--kube-context": self.kube_context,
                "--namespace": self.namespace,
                "--kube-service": "" if self.kube_service == KUBE_SERVICE else self.kube_service,
                "--kube-port": "" if self.kube_port == KUBE_PORT else str(self.kube_port),
                "--kubeconfig": str(self.kubeconfig or ""),
            }
        words = [word for name, value in (where | tls).items() if value for word in (name, value)]
        return [*words, "--tls"] if self.tls else words


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What to build."""

    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE.JSON",
            show_default=False,
            help="A file with a source, or a whole request, in JSON; - reads it from stdin.",
        ),
    ] = ""
    file: Annotated[str, _option("--source", panel=SOURCE, metavar="FILE", help="The same as an option.")] = (
        ""
    )
    ref: Annotated[str, _option(panel=SOURCE, metavar="IMAGE", help="Build from this image.")] = ""
    git: Annotated[
        str, _option(panel=SOURCE, metavar="URL", help="Build the Dockerfile of this git repository.")
    ] = ""
    revision: Annotated[
        str, _option(panel=SOURCE, metavar="REV", help="A commit, branch or tag.", show_default="its HEAD")
    ] = ""
    pin: Annotated[
        bool,
        _option(
            "--pin/--no-pin",
            panel=SOURCE,
            help="Look up which commit a branch or tag is now, with this machine's git.",
        ),
    ] = True
    dockerfile: Annotated[
        str, _option(panel=SOURCE, metavar="PATH", help="The Dockerfile in it.", show_default="Dockerfile")
    ] = ""
    context_path: Annotated[
        str,
        _option(
            "--context",
            panel=SOURCE,
            metavar="PATH",
            help="The build context in it.",
            show_default="the Dockerfile's folder",
        ),
    ] = ""
    dockerfile_version: Annotated[
        str,
        _option(
            panel=SOURCE,
            metavar="TEXT",
            help="What tells this Dockerfile from earlier ones.",
            show_default="the revision",
        ),
    ] = ""
    git_auth: Annotated[
        str,
        _option(
            panel=CREDENTIALS,
            metavar="env:VARIABLE|file:PATH",
            help="Where user:password for the repository is.",
        ),
    ] = ""

    def wanted(self) -> Wanted:
        """The same, with its secret read, and its revision looked up. Blocks.

        :raises InvalidOptionError: if something can't be used.
        """
        from imgbuilder.client.credentials import login_of
        from imgbuilder.client.revisions import pinned
        from imgbuilder.client.sources import Wanted

        if self.source and self.file:
            raise InvalidOptionError("--source", "is given, and a file as well: give one of them")
        wanted = Wanted(
            ref=self.ref,
            git=self.git,
            revision=self.revision,
            dockerfile=self.dockerfile,
            context=self.context_path,
            dockerfile_version=self.dockerfile_version,
            file=self.source or self.file,
            login=login_of(self.git_auth, "--git-auth") if self.git_auth else None,
        )
        return pinned(wanted) if self.pin else wanted


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuthOptions:
    """Which credentials for registries may be used."""

    auth: Annotated[
        list[str] | None,
        _option(
            panel=CREDENTIALS,
            metavar="GRANT",
            help="Let the service use its own credentials: all, base, workspace, or a REGISTRY; or give ours:"
            " REGISTRY=env:VARIABLE, REGISTRY=file:PATH (user:password). May be repeated.",
        ),
    ] = None
    auth_file: Annotated[
        str,
        _option(
            panel=CREDENTIALS,
            envvar="IMGBUILDER_AUTH_FILE",
            metavar="FILE",
            help="Credentials of ours, as in Docker's config.json.",
        ),
    ] = ""

    def message(self) -> BuildRegistryAuth | None:
        """The same as the contract's message; None for none.

        :raises InvalidOptionError: if something can't be used.
        """
        from imgbuilder.client.credentials import auth_of

        return auth_of(self.auth or (), file=self.auth_file)


def expanded(command: Callable[..., Any]) -> Callable[..., Any]:
    """*command* with the fields of its groups of options as parameters of their own, for typer to see.

    What the command imports when it runs comes without rich, which only a terminal needs.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, list[str]]] = {}
    for parameter in signature.parameters.values():
        if dataclasses.is_dataclass(parameter.annotation) and isinstance(parameter.annotation, type):
            hints = typing.get_type_hints(parameter.annotation, include_extras=True)
            fields = dataclasses.fields(parameter.annotation)
            groups[parameter.name] = parameter.annotation, [field.name for field in fields]
            parameters += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=hints[field.name],
                )
                for field in fields
            ]
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        import_without_rich("structlog")  # before what brings it along
        for name, (group, fields) in groups.items():
            options[name] = group(**{field: options.pop(field) for field in fields})
        return command(*arguments, **options)

    shown: Any = wrapper
    shown.__signature__ = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    shown.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del shown.__wrapped__
    return wrapper
