"""Settings come from the environment, and a wrong one is named."""

import pytest

from vectorindex_operator.errors import SettingsError
from vectorindex_operator.settings import parse_settings

IMAGE = {"VECTORINDEX_INDEXER_IMAGE": "registry.example/indexer:1"}


def test_defaults_need_only_the_image() -> None:
    settings = parse_settings(IMAGE)
    assert (settings.watch_namespaces, settings.ops_port, settings.indexer_pull_policy) == ((), 9090, "IfNotPresent")


def test_lists_are_comma_separated() -> None:
    environment = {"VECTORINDEX_WATCH_NAMESPACES": "a, b", "VECTORINDEX_MONITORING_NAMESPACE_LABELS": "team=x,kind=monitoring", **IMAGE}
    settings = parse_settings(environment)
    assert settings.watch_namespaces == ("a", "b")
    assert settings.monitoring_namespace_labels == (("team", "x"), ("kind", "monitoring"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VECTORINDEX_INDEXER_IMAGE", " "),
        ("VECTORINDEX_INDEXER_IMAGE_PULL_POLICY", "Sometimes"),
        ("VECTORINDEX_WATCH_NAMESPACES", "a,B"),
        ("VECTORINDEX_MONITORING_NAMESPACE_LABELS", "monitoring"),
        ("VECTORINDEX_OPS_PORT", "http"),
        ("VECTORINDEX_OPS_PORT", "0"),
        ("VECTORINDEX_LOG_LEVEL", "loud"),
        ("VECTORINDEX_RESYNC_SECONDS", "0"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        parse_settings({**IMAGE, name: value})
