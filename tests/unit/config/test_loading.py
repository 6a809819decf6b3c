"""From the text of a file to a configuration, or to one message."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.config import ConfigError, load, parse
from imgbuilder.runtime.grpc.addresses import Address
from tests.unit.config.conftest import MINIMAL, Changed


def test_what_is_not_set_has_the_defaults_of_the_contract(changed: Changed) -> None:
    """A file with only what must be there gives the documented defaults."""
    config = parse("config.json", changed()).config
    assert config.server.services.grpc.address == Address("", 8080)
    assert not config.server.services.grpc.tls.enabled
    assert not config.orchestrator.wsman.tls.enabled
    assert not config.orchestrator.enable_additional_ecr_auth
    assert (config.ref_cache.interval, config.ref_cache.refs) == (6 * 3600, ())
    assert (config.registries.timeout, config.registries.lookup_timeout) == (15, 40)
    assert config.registries.platform == "linux/amd64"
    assert (config.logs.memory, config.logs.max_size, config.logs.retention) == (256 << 10, 64 << 20, 3600)
    assert config.builds.maximum_duration == 3600
    assert config.limits.message_size == 4 << 20
    assert config.telemetry.metrics_address == Address("127.0.0.1", 9500)
    assert config.telemetry.probes_address == Address("", 9501)
    assert config.shutdown.drain == 10


def test_every_setting_of_the_contract_is_read(changed: Changed) -> None:
    """The names are those of the system that is replaced, whose spelling has its oddities."""
    config = parse(
        "config.json",
        changed(
            {
                "orchestrator.wsman.tls": {"ca": "/ca", "crt": "/crt", "key": "/key"},
                "orchestrator.pullSecret": "secret",
                "orchestrator.pullSecretFile": "/pull-secret",
                "orchestrator.enableAdditionalECRAuth": True,
                "orchestrator.subassemblyBucketName": "bucket",
                "orchestrator.subassemblyBucketPrefix": "prefix",
                "refCache": {"interval": "1h30m", "refs": ["ubuntu"]},
                "server.services.grpc.tls": {
                    "caPath": "/ca",
                    "certPath": "/crt",
                    "keyPath": "/key",
                    "requireClientCert": True,
                },
            }
        ),
    ).config
    orchestrator, tls = config.orchestrator, config.server.services.grpc.tls
    assert (orchestrator.wsman.tls.ca, orchestrator.wsman.tls.crt, orchestrator.wsman.tls.key) == (
        "/ca",
        "/crt",
        "/key",
    )
    assert orchestrator.wsman.address == "ws-manager:8080"
    assert (orchestrator.pull_secret, orchestrator.pull_secret_file) == ("secret", "/pull-secret")
    assert orchestrator.enable_additional_ecr_auth
    assert (orchestrator.subassembly_bucket_name, orchestrator.subassembly_bucket_prefix) == (
        "bucket",
        "prefix",
    )
    assert (config.ref_cache.interval, config.ref_cache.refs) == (5400, ("ubuntu",))
    assert (tls.ca_path, tls.cert_path, tls.key_path, tls.require_client_cert) == (
        "/ca",
        "/crt",
        "/key",
        True,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"refCache": None},
        {"refCache": {}},
        {"refCache": {"interval": "", "refs": None}},
        {"orchestrator.wsman.tls": None},
        {"orchestrator.wsman.tls": {}},
        {"orchestrator.wsman.tls": {"ca": "", "crt": "", "key": ""}},
        {"server.services.grpc.tls": None},
        {"server.services.grpc.tls": {"caPath": "", "certPath": "", "keyPath": ""}},
        {"orchestrator.pullSecret": "", "orchestrator.pullSecretFile": ""},
        {"orchestrator.enableAdditionalECRAuth": None},
        {"registries": None, "logs": {}, "limits": {"messageSize": None}},
    ],
)
def test_what_go_writes_for_settings_that_are_not_set_loads(
    changed: Changed, changes: dict[str, Any]
) -> None:
    """Nulls, empty objects and empty texts mean that a setting is not set."""
    assert parse("config.json", changed(changes)).config == parse("config.json", changed()).config


def test_names_match_whatever_their_case(changed: Changed) -> None:
    """As in Go; what is spelled properly wins over what is not, and the other is reported."""
    loaded = parse("config.json", changed({"REFCACHE": {"Interval": "1h"}, "orchestrator.pullsecret": "a"}))
    assert loaded.config.ref_cache.interval == 3600
    assert loaded.config.orchestrator.pull_secret == "a"
    assert loaded.unknown_keys == ()
    loaded = parse("config.json", changed({"refcache": {"interval": "1h"}, "refCache": {"interval": "2h"}}))
    assert loaded.config.ref_cache.interval == 7200
    assert loaded.unknown_keys == ("refcache",)


def test_unknown_keys_are_reported_with_their_paths(changed: Changed) -> None:
    """They do no harm and are told to the caller; `$schema` at the top is known."""
    loaded = parse(
        "config.json",
        changed(
            {
                "$schema": "https://example.com/schema.json",
                "colour": "red",
                "orchestrator.wsman.tls": {"caPath": "/ca"},
                "orchestrator.feature.flag": 1,
                "server.$schema": "no",
                "a b": 1,
            }
        ),
    )
    assert set(loaded.unknown_keys) == {
        "colour",
        "orchestrator.wsman.tls.caPath",
        "orchestrator.feature",
        "server.$schema",
        '["a b"]',
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"orchestrator": ...}, "orchestrator: is missing"),
        ({"orchestrator.wsman.address": ...}, "orchestrator.wsman.address: is missing"),
        ({"orchestrator.wsman.address": ""}, "orchestrator.wsman.address: must not be empty"),
        ({"orchestrator.wsman.address": 1}, "orchestrator.wsman.address: must be text"),
        ({"orchestrator.wsman": "x:1"}, "orchestrator.wsman: must be an object"),
        ({"orchestrator.builderImage": None}, "orchestrator.builderImage: is missing"),
        (
            {"orchestrator.wsman.tls": {"ca": "a"}},
            "orchestrator.wsman.tls: ca, crt, key belong together; missing: crt, key",
        ),
        (
            {"orchestrator.baseImageRepository": "localhost:5000/base:1"},
            'orchestrator.baseImageRepository: "localhost:5000/base:1" is not a repository: it has a tag or a digest',
        ),
        (
            {"orchestrator.workspaceImageRepository": "Base"},
            (
                'orchestrator.workspaceImageRepository: "Base" is not an image reference: '
                "invalid reference format: repository name (library/Base) must be lowercase"
            ),
        ),
        (
            {"orchestrator.enableAdditionalECRAuth": "yes"},
            "orchestrator.enableAdditionalECRAuth: must be true or false",
        ),
        ({"refCache.interval": "6 hours"}, 'refCache.interval: "6 hours" is not a duration such as "1h30m"'),
        ({"refCache.interval": "-1h"}, "refCache.interval: must be more than 0"),
        ({"refCache.refs": "ubuntu"}, "refCache.refs: must be a list"),
        ({"refCache.refs": ["ubuntu", 7]}, "refCache.refs[1]: must be text"),
        ({"server.services.grpc": None}, "server.services.grpc: is missing"),
        (
            {"server.services.grpc.address": "8080"},
            'server.services.grpc.address: "8080" is not an address such as "127.0.0.1:8080", ":8080" or "[::1]:8080"',
        ),
        (
            {"server.services.grpc.tls": {"certPath": "a"}},
            "server.services.grpc.tls: certPath, keyPath belong together; missing: keyPath",
        ),
        (
            {"server.services.grpc.tls": {"caPath": "a"}},
            "server.services.grpc.tls: caPath is of no use without certPath and keyPath",
        ),
        (
            {"server.services.grpc.tls": {"certPath": "a", "keyPath": "b", "requireClientCert": True}},
            "server.services.grpc.tls: requireClientCert needs caPath",
        ),
        ({"limits.connections": 0}, "limits.connections: must be greater than or equal to 1"),
        ({"limits.connections": 1.5}, "limits.connections: must be a whole number"),
        (
            {"limits.messageSize": "4 potatoes"},
            'limits.messageSize: "4 potatoes" is not a size such as "64MiB"',
        ),
        (
            {"registries.mirrors": {"docker.io": "mirror"}},
            'registries.mirrors["docker.io"]: is not an address such as https://mirror.example.com',
        ),
        ({"registries.mirrors": []}, "registries.mirrors: must be an object"),
    ],
)
def test_what_can_not_work_is_one_message(changed: Changed, changes: dict[str, Any], message: str) -> None:
    """The message names the file, the field as it is spelled, and what is wrong with it."""
    with pytest.raises(ConfigError) as info:
        parse("etc/config.json", changed(changes))
    assert str(info.value) == f"etc/config.json: {message}"


def test_everything_that_is_wrong_is_told_at_once(changed: Changed) -> None:
    """Nobody wants to start a service five times to learn of five faults; it stays one line."""
    with pytest.raises(ConfigError) as info:
        parse(
            "config.json",
            changed({"orchestrator.builderImage": "", "refCache.interval": "x", "logs.followed": -1}),
        )
    assert [fault.field for fault in info.value.faults] == [
        "orchestrator.builderImage",
        "refCache.interval",
        "logs.followed",
    ]
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b'{\n  "orchestrator": {,\n}',
            "is not JSON: Expecting property name enclosed in double quotes (line 2, column 20)",
        ),
        (b"", "is not JSON: Expecting value (line 1, column 1)"),
        (b"\xff\xfe\xfd", "is not JSON in UTF-8"),
        (b"[" * 100_000, "is not JSON in UTF-8"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused(text: bytes, message: str) -> None:
    """Where the fault is in the text is told by line and column."""
    with pytest.raises(ConfigError) as info:
        parse("config.json", text)
    assert str(info.value) == f"config.json: {message}"


def test_a_file_that_is_not_there_is_one_message() -> None:
    """The message names it."""
    with pytest.raises(
        ConfigError, match=r"^/no/such/config.json: cannot be read: No such file or directory$"
    ):
        load("/no/such/config.json")


def test_the_example_loads() -> None:
    """What `make run` starts with is a configuration without unknown keys."""
    loaded = load("config/example.json")
    assert loaded.unknown_keys == ()
    assert loaded.config.server.services.grpc.address == Address("127.0.0.1", 8080)


def test_a_configuration_can_not_be_changed(changed: Changed) -> None:
    """Parts of the service share it."""
    config = parse("config.json", changed()).config
    with pytest.raises(ValueError, match="frozen"):
        config.server.services.grpc.address = Address("", 1)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_SECTIONS = [
    "orchestrator", "orchestrator.wsman", "orchestrator.wsman.tls", "refCache", "refCache.refs", "registries.mirrors",
    "registries.insecure", "server.services", "server.services.grpc.tls", "logs.memory", "telemetry", "shutdown.drain",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(_SECTIONS), _JSON, max_size=3))
def test_no_json_makes_it_fail_in_another_way(changes: dict[str, Any]) -> None:
    """Whatever stands where, it loads or it is a configuration error."""
    config = json.loads(json.dumps(MINIMAL))
    for path, value in changes.items():
        *sections, name = path.split(".")
        place = config
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[name] = value
    try:
        parse("config.json", json.dumps(config).encode())
    except ConfigError as error:
        assert error.faults  # noqa: PT017  # that there may be none is the point


def test_files_are_looked_at(written: Callable[..., str]) -> None:
    """Loading goes on to the files that are named."""
    path = written({"orchestrator.pullSecretFile": "/no/such/file"})
    with pytest.raises(ConfigError) as info:
        load(path)
    assert str(info.value) == (
        f"{path}: orchestrator.pullSecretFile: /no/such/file: cannot be read: No such file or directory"
    )
