"""What can go wrong with a cluster, as one line that says what to do about it.

Texts name objects, rights and files; never a token, a key, or the contents of a kubeconfig or a secret.
"""

from __future__ import annotations

from collections.abc import Sequence

from imgbuilder.core.errors import ImgbuilderError


class KubeError(ImgbuilderError):
    """Base of what this package raises."""


class KubeconfigError(KubeError):
    """A kubeconfig can't be used.

    :ivar path: the file, or the files as ``KUBECONFIG`` lists them.
    """

    def __init__(self, path: str, fault: str) -> None:
        super().__init__(f"kubeconfig {path}: {fault}")
        self.path = path


class NoSuchKubeconfigError(KubeconfigError):
    """There is no kubeconfig."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "there is no such file: set KUBECONFIG, or log in to the cluster first")


class NoSuchContextError(KubeconfigError):
    """The kubeconfig has no context of that name.

    :ivar context: the one that was asked for; empty if none was, and the kubeconfig has no current one.
    :ivar known: those that there are.
    """

    def __init__(self, path: str, context: str, known: Sequence[str]) -> None:
        choice = f"choose one of {', '.join(known)}" if known else "it has none at all"
        what = f"has no context {context}" if context else "has no current context"
        super().__init__(path, f"{what}: {choice}")
        self.context = context
        self.known = tuple(known)


class ClusterUnreachableError(KubeError):
    """No answer from the API server: no connection, none that can be trusted, or none in time.

    :ivar server: its address.
    """

    def __init__(self, server: str, fault: str) -> None:
        super().__init__(f"cluster {server} is unreachable: {fault}")
        self.server = server
        self.fault = fault


class NotLoggedInError(KubeError):
    """The API server does not know who we are."""

    def __init__(self, server: str, context: str) -> None:
        super().__init__(
            f"cluster {server} does not accept the credentials of context {context}: log in again"
        )
        self.server = server
        self.context = context


class NotAllowedError(KubeError):
    """A right is missing.

    :ivar verb: what was to be done, e.g. ``get``.
    :ivar resource: to what, e.g. ``secrets``.
    """

    def __init__(self, verb: str, resource: str, namespace: str, context: str) -> None:
        super().__init__(
            f"not allowed to {verb} {resource} in namespace {namespace}: "
            f"the user of context {context} needs a role with that right"
        )
        self.verb = verb
        self.resource = resource
        self.namespace = namespace


class ClusterFaultError(KubeError):
    """The API server answered with an error that is none of the above.

    :ivar status: of HTTP.
    """

    def __init__(self, server: str, status: int, fault: str) -> None:
        super().__init__(f"cluster {server} answered {status}: {fault}")
        self.server = server
        self.status = status
        self.fault = fault


class NoSuchObjectError(KubeError):
    """There is no object of that kind and name, or no such namespace: Kubernetes does not tell these apart."""

    kind = "object"

    def __init__(self, name: str, namespace: str) -> None:
        super().__init__(
            f"there is no {self.kind} {name} in namespace {namespace}: is it the right namespace?"
        )
        self.name = name
        self.namespace = namespace


class NoSuchSecretError(NoSuchObjectError):
    """There is no such secret."""

    kind = "secret"


class NoSuchServiceError(NoSuchObjectError):
    """There is no such service."""

    kind = "service"


class NoSuchPodError(NoSuchObjectError):
    """The pod is gone."""

    kind = "pod"


class NoSuchPortError(KubeError):
    """A service has no such port, or its pod does not have the port that the service names."""

    def __init__(self, service: str, port: int | str, known: Sequence[int | str]) -> None:
        choice = f"it has {', '.join(map(str, known))}" if known else "it has none"
        super().__init__(f"service {service} has no port {port}: {choice}")
        self.service = service
        self.port = port


class NoReadyPodError(KubeError):
    """No pod behind a service can take a connection now."""

    def __init__(self, service: str, namespace: str, fault: str) -> None:
        super().__init__(f"no pod of service {service} in namespace {namespace} is ready: {fault}")
        self.service = service
        self.namespace = namespace


class PortForwardError(KubeError):
    """A pod could not be reached through the cluster, or was lost.

    :ivar fault: as the cluster says it.
    """

    def __init__(self, pod: str, port: int, fault: str) -> None:
        super().__init__(f"port {port} of pod {pod}: {fault}")
        self.pod = pod
        self.port = port
        self.fault = fault


class PortTakenError(KubeError):
    """The local port can't be listened on.

    :ivar address: ``host:port``.
    """

    def __init__(self, address: str, fault: str) -> None:
        super().__init__(f"cannot listen on {address}: {fault}")
        self.address = address


class SecretContentError(KubeError):
    """A secret does not hold what it should.

    :ivar key: the key of the secret that is at fault.
    """

    def __init__(self, secret: str, key: str, fault: str) -> None:
        super().__init__(f"secret {secret}: {key} {fault}")
        self.secret = secret
        self.key = key


class TlsFilesError(KubeError):
    """Certificates can't be written.

    :ivar folder: where.
    """

    def __init__(self, folder: str, fault: str) -> None:
        super().__init__(f"cannot write certificates to {folder}: {fault}")
        self.folder = folder
