"""Which pod and which of its ports a service's port stands for. Decides, and asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from imgbuilder.kube.errors import NoReadyPodError, NoSuchPortError

Pod = Any
"""A `V1Pod`. The types of the client library do not say what may be absent."""

Service = Any
"""A `V1Service`, for which the same is true."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPort:
    """Where connections go."""

    namespace: str
    pod: str
    port: int


def selector_of(service: Service) -> str:
    """The label selector of the pods behind *service*.

    :raises NoReadyPodError: if it selects none, as those do that stand for something outside of the cluster.
    """
    labels = service.spec.selector
    if not labels:
        name, namespace = service.metadata.name, service.metadata.namespace
        raise NoReadyPodError(name, namespace, "the service selects no pods")
    return ",".join(f"{label}={value}" for label, value in sorted(labels.items()))


def pod_port(service: Service, port: int, pods: Sequence[Pod]) -> PodPort:
    """The ready pod among *pods* that has been there longest, and its port for the service's *port*.

    :raises NoSuchPortError: if the service, or that pod, has none.
    :raises NoReadyPodError: if none is ready.
    """
    name, namespace = service.metadata.name, service.metadata.namespace
    target = _target_port(service, port)
    ready = [pod for pod in pods if _is_ready(pod)]
    if not ready:
        raise NoReadyPodError(name, namespace, _why_not(pods))
    chosen = min(ready, key=lambda pod: (str(pod.metadata.creation_timestamp), pod.metadata.name))
    number = target if isinstance(target, int) else _named_port(chosen, target)
    if number is None:
        raise NoSuchPortError(name, target, sorted(_ports(chosen)))
    return PodPort(namespace=namespace, pod=chosen.metadata.name, port=number)


def _target_port(service: Service, port: int) -> int | str:
    """What the service's *port* is on the pods: a number, or a name that each pod explains."""
    ports = service.spec.ports or []
    for entry in ports:
        if entry.port == port and entry.protocol in {None, "TCP"}:
            target: int | str = entry.target_port or port
            return target
    raise NoSuchPortError(service.metadata.name, port, [entry.port for entry in ports])


def _is_ready(pod: Pod) -> bool:
    if pod.metadata.deletion_timestamp is not None or pod.status is None:
        return False
    return any(
        condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions or []
    )


def _why_not(pods: Sequence[Pod]) -> str:
    if not pods:
        return "it has none"
    states = [
        f"{pod.metadata.name} is {'ending' if pod.metadata.deletion_timestamp else pod.status.phase}"
        for pod in pods[:3]
    ]
    return ", ".join(states) + (f" and {len(pods) - 3} more" if len(pods) > 3 else "")


def _named_port(pod: Pod, name: str) -> int | None:
    return _ports(pod).get(name)


def _ports(pod: Pod) -> dict[str, int]:
    return {
        port.name: port.container_port
        for container in pod.spec.containers
        for port in container.ports or []
        if port.name
    }
