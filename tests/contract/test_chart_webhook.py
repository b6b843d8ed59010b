"""The chart's part of the webhook: nothing of it unless asked for, a token that is a file, and a way in for those who may."""

from typing import Any

import yaml

from tests.support.helm import CHART, Manifest, by_kind, helm, render_chart
from vectorindex_operator import names
from vectorindex_operator.settings import Webhook, parse_settings

ENABLED = ("webhook.enabled=true", "webhook.auth.existingSecret=hook")
TLS = "webhook.tls.existingSecret=hook-tls"


def settings_of(*more: str) -> Webhook | None:
    """Return what the operator makes of the environment that the chart gives it."""
    entries = container(*more)["env"]
    return parse_settings({entry["name"]: entry.get("value", "x") for entry in entries}).webhook


def pod(*settings: str) -> Manifest:
    (deployment,) = by_kind(render_chart(*settings), "Deployment")
    found: Manifest = deployment["spec"]["template"]["spec"]
    return found


def container(*settings: str) -> Manifest:
    found: Manifest = pod(*settings)["containers"][0]
    return found


def services(*settings: str) -> dict[str, Any]:
    return {manifest["metadata"]["name"]: manifest["spec"] for manifest in by_kind(render_chart(*settings), "Service")}


def ways_in(*settings: str) -> dict[str, Any]:
    """Return who may reach each port."""
    (policy,) = by_kind(render_chart(*settings), "NetworkPolicy")
    return {rule["ports"][0]["port"]: rule["from"] for rule in policy["spec"]["ingress"]}


def test_nothing_of_it_is_there_unless_asked_for() -> None:
    assert settings_of() is None
    assert [port["name"] for port in container()["ports"]] == ["ops"]
    assert "vectorindex-webhook" not in services()
    assert set(ways_in()) == {"ops"}
    assert "webhook" not in yaml.safe_dump_all(one for one in render_chart() if one["kind"] != "CustomResourceDefinition")


def test_the_defaults_of_chart_and_operator_are_the_same() -> None:
    found = settings_of(*ENABLED)
    assert found is not None
    assert found == Webhook(names.WEBHOOK_PORT, found.token_file, found.alerts)


def test_listened_to_are_the_chart_s_alerts_with_the_label_or_those_that_are_named() -> None:
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    labelled = [rule["alert"] for group in groups for rule in group["rules"] if rule["labels"].get("heal") == "validate"]
    assert labelled
    found = settings_of(*ENABLED)
    assert found is not None
    assert list(found.alerts) == labelled
    chosen = settings_of(*ENABLED, "webhook.alerts={SearchIsWrong,Other}", "webhook.labels.index=vidx", "webhook.cooldownSeconds=60")
    assert chosen is not None
    assert (chosen.alerts, chosen.index_label, chosen.cooldown.total_seconds()) == (("SearchIsWrong", "Other"), "vidx", 60)


def test_token_and_certificate_are_files_of_secrets() -> None:
    spec = pod(*ENABLED, "webhook.auth.key=bearer", TLS)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    assert volumes["webhook"]["secret"]["items"] == [{"key": "bearer", "path": "token"}]
    assert volumes["webhook-tls"]["secret"]["secretName"] == "hook-tls"
    found = settings_of(*ENABLED, TLS)
    assert found is not None
    assert (str(found.token_file), str(found.tls_folder)) == (
        f"{mounts['webhook']['mountPath']}/token",
        mounts["webhook-tls"]["mountPath"],
    )
    for name in ("webhook", "webhook-tls"):
        assert mounts[name]["readOnly"] is True
        assert "subPath" not in mounts[name]  # such a file is never renewed


def test_service_and_policy_lead_to_the_port() -> None:
    (deployment,) = by_kind(render_chart(*ENABLED), "Deployment")
    service = services(*ENABLED, "webhook.port=9443")["vectorindex-webhook"]
    assert service["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert service["ports"] == [{"name": "webhook", "port": 9443, "targetPort": "webhook"}]
    assert {port["name"]: port["containerPort"] for port in container(*ENABLED)["ports"]}["webhook"] == names.WEBHOOK_PORT
    monitoring = {"kubernetes.io/metadata.name": "monitoring"}
    assert ways_in(*ENABLED)["webhook"] == [{"namespaceSelector": {"matchLabels": monitoring}}]
    chosen = ways_in(*ENABLED, "webhook.namespaceSelector.team=watch")["webhook"]
    assert chosen == [{"namespaceSelector": {"matchLabels": {"team": "watch"}}}]


def test_a_webhook_without_a_token_is_refused() -> None:
    result = helm("template", "vectorindex", str(CHART), "--set", "webhook.enabled=true")
    assert result.returncode != 0
    assert "webhook.auth.existingSecret: name the Secret" in result.stderr


def test_notes_tell_where_to_post() -> None:
    settings = [option for setting in (*ENABLED, TLS) for option in ("--set", setting)]
    result = helm("install", "vectorindex", str(CHART), "--dry-run=client", "--namespace", "system", *settings)
    assert f"https://vectorindex-webhook.system.svc:9091{names.WEBHOOK_PATH}" in result.stdout
