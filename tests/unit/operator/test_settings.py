"""Settings come from the environment, and a wrong one is named."""

import pytest

from vectorindex_operator.errors import SettingsError
from vectorindex_operator.settings import parse_settings

NEEDED = {"VECTORINDEX_INDEXER_IMAGE": "registry.example/indexer:1", "VECTORINDEX_WATCH_NAMESPACES": "search"}
LEASE = {"VECTORINDEX_LEASE_NAME": "vectorindex", "POD_NAME": "vectorindex-1", "POD_NAMESPACE": "search"}

WEBHOOK = {
    "VECTORINDEX_WEBHOOK_PORT": "9091",
    "VECTORINDEX_WEBHOOK_TOKEN_FILE": "/etc/vectorindex/webhook/token",
    "VECTORINDEX_WEBHOOK_ALERTS": "A, B",
}


def test_defaults_need_only_the_image_and_what_is_served() -> None:
    settings = parse_settings(NEEDED)
    assert (settings.watch_namespaces, settings.ops_port, settings.indexer_pull_policy) == (("search",), 9090, "IfNotPresent")
    assert settings.lease_name == ""


def test_all_namespaces_are_served_only_when_that_is_said() -> None:
    assert parse_settings({**NEEDED, "VECTORINDEX_WATCH_NAMESPACES": "*"}).watch_namespaces == ()
    for value in ({}, {"VECTORINDEX_WATCH_NAMESPACES": ""}, {"VECTORINDEX_WATCH_NAMESPACES": " "}):
        with pytest.raises(SettingsError, match="VECTORINDEX_WATCH_NAMESPACES: must be set"):
            parse_settings({"VECTORINDEX_INDEXER_IMAGE": "registry.example/indexer:1", **value})


def test_a_lease_needs_to_know_who_signs_it_and_where_it_is() -> None:
    settings = parse_settings({**NEEDED, **LEASE})
    assert (settings.lease_name, settings.pod_name, settings.operator_namespace) == ("vectorindex", "vectorindex-1", "search")
    for name in ("POD_NAME", "POD_NAMESPACE"):
        with pytest.raises(SettingsError, match=f"{name}: must be set"):
            parse_settings({**NEEDED, **LEASE, name: ""})


def test_lists_are_comma_separated() -> None:
    environment = {"VECTORINDEX_WATCH_NAMESPACES": "a, b", "VECTORINDEX_MONITORING_NAMESPACE_LABELS": "team=x,kind=monitoring"}
    settings = parse_settings({**NEEDED, **environment})
    assert settings.watch_namespaces == ("a", "b")
    assert settings.monitoring_namespace_labels == (("team", "x"), ("kind", "monitoring"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VECTORINDEX_INDEXER_IMAGE", " "),
        ("VECTORINDEX_INDEXER_IMAGE_PULL_POLICY", "Sometimes"),
        ("VECTORINDEX_WATCH_NAMESPACES", "a,B"),
        ("VECTORINDEX_WATCH_NAMESPACES", "a,"),
        ("VECTORINDEX_WATCH_NAMESPACES", "a,*"),
        ("VECTORINDEX_MONITORING_NAMESPACE_LABELS", "monitoring"),
        ("VECTORINDEX_OPS_PORT", "http"),
        ("VECTORINDEX_OPS_PORT", "0"),
        ("VECTORINDEX_LOG_LEVEL", "loud"),
        ("VECTORINDEX_WEBHOOK_TOKEN_FILE", ""),
        ("VECTORINDEX_WEBHOOK_ALERTS", " "),
        ("VECTORINDEX_WEBHOOK_BUDGET_WISHES", "0"),
        ("VECTORINDEX_WEBHOOK_COOLDOWN_SECONDS", "soon"),
        ("VECTORINDEX_RESYNC_SECONDS", "0"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        parse_settings({**NEEDED, **WEBHOOK, name: value})


def test_the_webhook_is_off_unless_its_port_is_named() -> None:
    assert parse_settings({**NEEDED, **WEBHOOK, "VECTORINDEX_WEBHOOK_PORT": ""}).webhook is None
    webhook = parse_settings({**NEEDED, **WEBHOOK}).webhook
    assert webhook is not None
    assert (webhook.port, webhook.alerts, webhook.tls_folder, webhook.index_label) == (9091, ("A", "B"), None, "index")
