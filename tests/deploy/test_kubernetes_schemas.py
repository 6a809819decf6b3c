"""What the overlays render to are objects that a cluster takes."""

from __future__ import annotations

import re
from collections.abc import Callable

import kubernetes_validate  # type: ignore[import-untyped]  # comes without types
import pytest

from tests.deploy.documents import Document
from tests.deploy.rendering import Rendered, identity

VERSIONS = ["1.30", kubernetes_validate.latest_version()]
"""The oldest version that docs/kubernetes.md promises, and the newest whose schemas are at hand."""

DURATION = re.compile(r"([0-9]+(h|m|s|ms))+")


def check_certificate(each: Document) -> None:
    """As cert-manager.io/v1 has it."""
    assert each["apiVersion"] == "cert-manager.io/v1"
    spec = each["spec"]
    known = {"secretName", "duration", "renewBefore", "privateKey", "usages", "dnsNames", "issuerRef"}
    assert spec.keys() <= known | {"secretTemplate"}
    assert spec["issuerRef"].keys() == {"group", "kind", "name"}
    assert spec["issuerRef"]["kind"] in {"Issuer", "ClusterIssuer"}
    assert DURATION.fullmatch(spec["duration"])
    assert DURATION.fullmatch(spec["renewBefore"])
    assert set(spec["usages"]) <= {"server auth", "client auth", "digital signature", "key encipherment"}
    assert spec["privateKey"] == {"rotationPolicy": "Always"}
    assert spec["dnsNames"]


def check_service_monitor(each: Document) -> None:
    """As monitoring.coreos.com/v1 has it."""
    assert each["apiVersion"] == "monitoring.coreos.com/v1"
    spec = each["spec"]
    assert spec.keys() <= {"jobLabel", "selector", "endpoints"}
    assert spec["selector"].keys() == {"matchLabels"}
    for endpoint in spec["endpoints"]:
        known = {"port", "path", "scheme", "interval", "scrapeTimeout", "bearerTokenFile", "tlsConfig"}
        assert endpoint.keys() <= known
        assert endpoint["scheme"] in {"http", "https"}
        assert isinstance(endpoint["port"], str)
        for name in ("interval", "scrapeTimeout"):
            assert DURATION.fullmatch(endpoint[name])


CUSTOM: dict[str, Callable[[Document], None]] = {
    "Certificate": check_certificate,
    "ServiceMonitor": check_service_monitor,
}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_its_schema(rendered: Rendered, version: str) -> None:
    """With no field that the schema does not know, for the oldest and the newest Kubernetes."""
    checked = 0
    for each in rendered.objects:
        if each["kind"] in CUSTOM:
            CUSTOM[each["kind"]](each)
        else:
            kubernetes_validate.validate(each, version, strict=True)
        checked += 1
    assert checked >= 6


def test_a_field_that_is_unknown_is_noticed(rendered: Rendered) -> None:
    """The check of the schemas is strict."""
    broken = {**rendered.one("Service"), "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_no_object_is_there_twice(rendered: Rendered) -> None:
    """All are in one namespace, and of the names that others look for."""
    names = [identity(each) for each in rendered.objects]
    assert len(names) == len(set(names))
    spaces = {each["metadata"].get("namespace") for each in rendered.objects if "Cluster" not in each["kind"]}
    assert spaces == {"default"}
