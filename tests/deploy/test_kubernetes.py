"""What the overlays render to, as far as it has to fit together, or keeps somebody out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from imgbuilder.config import Config
from imgbuilder.core.permissions import is_ecr
from imgbuilder.core.references import parse_reference
from tests.deploy.documents import Document
from tests.deploy.rendering import KUBERNETES, LABELS, NAME, OVERLAYS, Rendered, render
from tests.interop.conftest import program

UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
DOCKERFILE_USER = 33333


def in_bytes(quantity: str) -> int:
    """A quantity of Kubernetes, as a number of bytes."""
    match = re.fullmatch(r"([0-9]+)([KMG]i)", quantity)
    assert match is not None
    return int(match[1]) * UNITS[match[2]]


def config_files(config: Config) -> list[str]:
    """The files that the configuration names."""
    tls = config.server.services.grpc.tls
    wsman = config.orchestrator.wsman.tls
    files = (
        *(config.orchestrator.pull_secret_file, wsman.ca, wsman.crt, wsman.key),
        *(tls.ca_path, tls.cert_path, tls.key_path),
    )
    return [file for file in files if file]


def test_there_is_an_overlay_of_each_kind() -> None:
    """Those that the documents tell of."""
    assert OVERLAYS == ["all", "ecr", "metrics", "plain", "tls"]


def test_the_names_are_those_of_the_system_that_is_replaced(rendered: Rendered) -> None:
    """So that it can be put in its place."""
    for kind in ("Deployment", "Service", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget"):
        assert rendered.one(kind)["metadata"]["name"] == NAME
    assert rendered.one("ConfigMap")["metadata"]["name"] == f"{NAME}-config"
    assert rendered.port("service") == 8080
    assert rendered.service["args"] == ["run", "--config", "/config/image-builder.json"]
    assert {"/config/image-builder.json", "/config/pull-secret", "/wsman-certs"} <= rendered.mounts.keys()
    for each in rendered.objects:
        assert each["metadata"]["labels"] == LABELS


def test_labels_select_the_pods(rendered: Rendered) -> None:
    """Every selector means them, and nothing less."""
    assert rendered.pod["metadata"]["labels"] == LABELS
    assert rendered.one("Deployment")["spec"]["selector"] == {"matchLabels": LABELS}
    assert rendered.one("Service")["spec"]["selector"] == LABELS
    assert rendered.one("PodDisruptionBudget")["spec"]["selector"] == {"matchLabels": LABELS}
    assert rendered.one("NetworkPolicy")["spec"]["podSelector"] == {"matchLabels": LABELS}
    spread = rendered.pod["spec"]["topologySpreadConstraints"]
    assert [each["labelSelector"] for each in spread] == [{"matchLabels": LABELS}] * len(spread)
    assert {each["topologyKey"] for each in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }


def test_containers_may_do_nothing(rendered: Rendered) -> None:
    """As the standard that Kubernetes calls restricted asks, and more."""
    pod = rendered.pod["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == DOCKERFILE_USER
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    for container in rendered.containers.values():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert not context["privileged"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context.get("runAsUser") != 0
    volumes = {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]}
    assert volumes <= {"configMap", "secret", "emptyDir", "projected"}


def test_the_service_has_no_token_of_the_cluster(rendered: Rendered) -> None:
    """It has no rights either, except to let the proxy ask who calls."""
    assert rendered.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert rendered.pod["spec"]["automountServiceAccountToken"] is False
    assert rendered.pod["spec"]["serviceAccountName"] == NAME
    assert not any("projected" in volume for _, volume in rendered.mounts.values())
    assert not rendered.all("RoleBinding")
    assert bool(rendered.all("ClusterRoleBinding")) == ("kube-rbac-proxy" in rendered.containers)
    for role in rendered.all("ClusterRole"):
        assert {(*rule["resources"], *rule["verbs"]) for rule in role["rules"]} == {
            ("tokenreviews", "create"),
            ("subjectaccessreviews", "create"),
        }


def test_the_configuration_is_understood(rendered: Rendered) -> None:
    """No key of it means nothing."""
    assert rendered.loaded.unknown_keys == ()


def test_files_of_the_configuration_are_mounted(rendered: Rendered) -> None:
    """By the names that they have in their secret; nothing is mounted that is not used."""
    used = {"/config/image-builder.json", "/spool", "/tmp"}
    for file in config_files(rendered.loaded.config):
        folder = str(Path(file).parent)
        mount, volume = rendered.mounts[folder]
        assert mount["readOnly"]
        assert "subPath" not in mount, "changes of the secret would not be seen"
        items = volume["secret"].get("items", [])
        assert Path(file).name in ({item["path"] for item in items} or {"ca.crt", "tls.crt", "tls.key"})
        used.add(folder)
    assert used == rendered.mounts.keys()


def test_the_pull_secret_of_builds_is_the_one_that_is_mounted(rendered: Rendered) -> None:
    """Build workspaces and the service have the same credentials."""
    _, volume = rendered.mounts["/config/pull-secret"]
    assert volume["secret"]["secretName"] == rendered.loaded.config.orchestrator.pull_secret
    assert [item["key"] for item in volume["secret"]["items"]] == [".dockerconfigjson"]


def test_what_is_written_has_a_place_and_a_limit(rendered: Rendered) -> None:
    """The root file system can't be written; the spool's limit is above what the service keeps to."""
    logs = rendered.loaded.config.logs
    mount, volume = rendered.mounts["/spool"]
    assert Path(logs.folder).is_relative_to("/spool")
    assert not mount.get("readOnly")
    assert in_bytes(volume["emptyDir"]["sizeLimit"]) >= logs.max_total + 2**29
    _, volume = rendered.mounts["/tmp"]
    assert in_bytes(volume["emptyDir"]["sizeLimit"]) > 0


def test_probes_ask_what_the_service_answers(rendered: Rendered) -> None:
    """On the port of the configuration, and patiently."""
    address = rendered.loaded.config.telemetry.probes_address
    assert address is not None
    assert (address.host, address.port) == ("", rendered.port("probes"))
    paths = {"startupProbe": "/live", "readinessProbe": "/ready", "livenessProbe": "/live"}
    for name, path in paths.items():
        probe = rendered.service[name]
        assert probe["httpGet"] == {"path": path, "port": "probes"}
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 15


def test_there_is_time_to_drain(rendered: Rendered) -> None:
    """The wait before the signal, the drain time of the configuration, and some time to close."""
    wait = rendered.service["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = rendered.loaded.config.shutdown.drain
    assert rendered.pod["spec"]["terminationGracePeriodSeconds"] >= wait + drain + 5


def test_the_service_is_reached_where_it_listens(rendered: Rendered) -> None:
    """The ports of the service are named ports of its containers, of the numbers in the configuration."""
    address = rendered.loaded.config.server.services.grpc.address
    assert (address.host, address.port) == ("", rendered.port("service"))
    named = {
        port["name"]: port["containerPort"]
        for container in rendered.containers.values()
        for port in container["ports"]
    }
    ports = rendered.one("Service")["spec"]["ports"]
    assert {port["targetPort"]: port["port"] for port in ports} == {
        name: number for name, number in named.items() if name != "probes"
    }
    tls = rendered.loaded.config.server.services.grpc.tls.enabled
    assert any("appProtocol" in port for port in ports) != tls


def test_who_may_call(rendered: Rendered) -> None:
    """Server and workspace manager the service, the monitoring namespace the metrics, nobody else anything."""
    spec = rendered.one("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    allowed: dict[int, list[Document]] = {
        port["port"]: rule["from"] for rule in spec["ingress"] for port in rule["ports"]
    }
    assert all(allowed.values()), "no peers means all peers"
    assert allowed.keys() == {port["port"] for port in rendered.one("Service")["spec"]["ports"]}
    assert allowed.pop(8080) == [
        {"podSelector": {"matchLabels": {"component": component}}}
        for component in ("server", "ws-manager-mk2")
    ]
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert allowed in ({}, {9500: [monitoring]})


def test_metrics_are_shown_to_the_pod_alone(rendered: Rendered) -> None:
    """Where others see them, the proxy asks who they are; nothing else of the service is behind it."""
    address = rendered.loaded.config.telemetry.metrics_address
    assert str(address) == "127.0.0.1:9500"
    proxy = rendered.containers.get("kube-rbac-proxy")
    assert bool(proxy) == bool(rendered.all("ServiceMonitor")) == (rendered.overlay in {"metrics", "all"})
    if proxy is not None:
        assert f"--upstream=http://{address}/" in proxy["args"]
        assert "--allow-paths=/metrics" in proxy["args"]
        monitor = rendered.one("ServiceMonitor")["spec"]
        assert monitor["selector"] == {"matchLabels": LABELS}
        assert monitor["endpoints"][0]["port"] == "metrics"


def test_tls_of_the_service(rendered: Rendered) -> None:
    """Its certificate is made under the names that clients use, into the secret that is mounted."""
    tls = rendered.loaded.config.server.services.grpc.tls
    assert tls.enabled == bool(rendered.all("Certificate")) == (rendered.overlay in {"tls", "all"})
    if tls.enabled:
        spec = rendered.one("Certificate")["spec"]
        _, volume = rendered.mounts[str(Path(tls.cert_path).parent)]
        assert volume["secret"]["secretName"] == spec["secretName"] == f"{NAME}-tls"
        assert spec["dnsNames"] == [NAME, f"{NAME}.default.svc", f"{NAME}.default.svc.cluster.local"]


def test_amazons_registries(rendered: Rendered) -> None:
    """Turned on in the configuration exactly where the service account has a role, and never with the node's."""
    on = rendered.loaded.config.orchestrator.enable_additional_ecr_auth
    annotations = rendered.one("ServiceAccount")["metadata"].get("annotations", {})
    assert on == ("eks.amazonaws.com/role-arn" in annotations) == (rendered.overlay in {"ecr", "all"})
    if on:
        environment = {each["name"]: each["value"] for each in rendered.service["env"]}
        assert environment["AWS_EC2_METADATA_DISABLED"] == "true"
        repository = rendered.loaded.config.orchestrator.workspace_image_repository
        assert is_ecr(parse_reference(repository).domain)


def test_a_rollout_never_has_fewer_replicas(rendered: Rendered) -> None:
    """Two by default; one at a time is taken from a node that is emptied."""
    spec = rendered.one("Deployment")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert rendered.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_image_is_a_fixed_one(rendered: Rendered) -> None:
    """Of a version, and small needs are stated."""
    for container in rendered.containers.values():
        tag = parse_reference(container["image"]).tag
        assert tag not in {None, "latest"}
    assert rendered.service["resources"]["requests"] == {"cpu": "100m", "memory": "200Mi"}


@pytest.mark.parametrize("overlay", ["tls", "all"])
def test_another_namespace(tmp_path: Path, overlay: str) -> None:
    """What an overlay of an installation sets reaches the certificate's names and the role's subject."""
    kustomization = (KUBERNETES / "overlays" / overlay / "kustomization.yaml").read_text()
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    folder = copy / "overlays" / overlay
    (folder / "kustomization.yaml").write_text(
        kustomization.replace("namespace: default", "namespace: builders")
    )
    rendered = Rendered(overlay=overlay, objects=render(program("kustomize"), folder))
    assert f"{NAME}.builders.svc" in rendered.one("Certificate")["spec"]["dnsNames"]
    for binding in rendered.all("ClusterRoleBinding"):
        assert [subject["namespace"] for subject in binding["subjects"]] == ["builders"]
