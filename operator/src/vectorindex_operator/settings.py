"""The operator's settings, read once from a mapping; what a user of a VectorIndex may not choose stands here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from vectorindex_operator import names
from vectorindex_operator.errors import SettingsError

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
PULL_POLICIES: Final = ("IfNotPresent", "Always", "Never")
EVERYWHERE: Final = "*"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class Webhook:
    """Settings of the port to which Alertmanager posts. It is off unless its port is named."""

    port: int
    token_file: Path
    """Holds the bearer token, and is read at each request: it may change at any time."""

    alerts: tuple[str, ...]
    """Names of the alerts that may ask for something."""

    tls_folder: Path | None = None
    """Holds tls.crt and tls.key, looked at now and then; without it there is no TLS."""

    namespace_label: str = "namespace"
    index_label: str = "index"
    """Labels of an alert that name the index."""

    cooldown: timedelta = timedelta(minutes=5)
    """Least time between two wishes for one index: a check asked for reads every row."""

    budget_wishes: int = 30
    budget_within: timedelta = timedelta(minutes=10)
    """So many wishes may be set within this time over all indexes, by each operator: a storm of alerts must be none of checks."""


@dataclass(frozen=True)
class Settings:
    """All settings. Each is one environment variable, named in `parse_settings`."""

    indexer_image: str
    """Image of the pods. A setting, as a field of the resource would let its author run any image."""

    indexer_pull_policy: str = "IfNotPresent"

    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose VectorIndexes are served; empty means all, which in the environment has to be said as `*`."""

    operator_namespace: str = "vectorindex-system"
    """Where the operator runs: its pods may read the status of the index pods."""

    lease_name: str = ""
    """Lease in the operator's namespace whose holder alone acts; empty: there is one operator, and it acts."""

    pod_name: str = ""
    """How this pod signs the lease; empty without one."""

    monitoring_namespace_labels: tuple[tuple[str, str], ...] = (("kubernetes.io/metadata.name", "monitoring"),)
    """Labels of the namespaces whose pods may read the metrics of the index pods."""

    host: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from outside the pod
    ops_port: int = names.OPS_PORT
    """Port of /livez, /readyz and /metrics."""

    webhook: Webhook | None = None

    log_level: str = "info"

    resync: timedelta = timedelta(minutes=5)
    """Every VectorIndex and its objects are read anew this often, whatever events said."""

    poll_busy: timedelta = timedelta(seconds=2)
    """How often members are asked while something is unsettled."""

    poll_settled: timedelta = timedelta(seconds=10)
    """How often members are asked at most seldom; a shorter check period shortens it."""

    workers: int = 32
    """How many VectorIndexes are looked at side by side: most of a look is waiting, at worst 2 s for pods that don't answer."""


def parse_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings; raise SettingsError with the variable's name when one is missing or wrong."""
    defaults = Settings(indexer_image="")
    lease = environment.get("VECTORINDEX_LEASE_NAME", "")
    return Settings(
        indexer_image=_required(environment, "VECTORINDEX_INDEXER_IMAGE"),
        indexer_pull_policy=_choice(environment, "VECTORINDEX_INDEXER_IMAGE_PULL_POLICY", PULL_POLICIES, defaults.indexer_pull_policy),
        watch_namespaces=_namespaces(environment, "VECTORINDEX_WATCH_NAMESPACES"),
        operator_namespace=_required(environment, "POD_NAMESPACE")
        if lease
        else environment.get("POD_NAMESPACE") or defaults.operator_namespace,
        pod_name=_required(environment, "POD_NAME") if lease else "",
        lease_name=lease,
        monitoring_namespace_labels=_labels(environment, "VECTORINDEX_MONITORING_NAMESPACE_LABELS", defaults.monitoring_namespace_labels),
        host=environment.get("VECTORINDEX_OPS_HOST") or defaults.host,
        ops_port=_port(environment, "VECTORINDEX_OPS_PORT", defaults.ops_port),
        webhook=_webhook(environment) if environment.get("VECTORINDEX_WEBHOOK_PORT") else None,
        log_level=_choice(environment, "VECTORINDEX_LOG_LEVEL", LOG_LEVELS, defaults.log_level),
        resync=_seconds(environment, "VECTORINDEX_RESYNC_SECONDS", defaults.resync),
    )


def _webhook(environment: Mapping[str, str]) -> Webhook:
    def named(name: str) -> str:
        return f"VECTORINDEX_WEBHOOK_{name}"

    tls = environment.get(named("TLS_FOLDER"), "")
    return Webhook(
        port=_port(environment, named("PORT"), names.WEBHOOK_PORT),
        token_file=Path(_required(environment, named("TOKEN_FILE"))),
        alerts=tuple(part.strip() for part in _required(environment, named("ALERTS")).split(",") if part.strip()),
        tls_folder=Path(tls) if tls else None,
        namespace_label=environment.get(named("NAMESPACE_LABEL")) or Webhook.namespace_label,
        index_label=environment.get(named("INDEX_LABEL")) or Webhook.index_label,
        cooldown=_seconds(environment, named("COOLDOWN_SECONDS"), Webhook.cooldown),
        budget_wishes=_positive(environment, named("BUDGET_WISHES"), Webhook.budget_wishes),
        budget_within=_seconds(environment, named("BUDGET_SECONDS"), Webhook.budget_within),
    )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name}: must be set")
    return value


def _choice(environment: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = environment.get(name) or default
    if value not in choices:
        raise SettingsError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return value


def _namespaces(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return the namespaces named, or none for all. An empty value is refused: something left out must not widen what is served."""
    values = tuple(part.strip() for part in _required(environment, name).split(","))
    if values == (EVERYWHERE,):
        return ()
    wrong = [value for value in values if len(value) > 63 or not _NAMESPACE.fullmatch(value)]
    if wrong:
        raise SettingsError(f"{name}: {wrong[0]!r} is no name of a namespace")
    return values


def _labels(environment: Mapping[str, str], name: str, default: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    text = environment.get(name, "")
    if not text:
        return default
    pairs = [part.strip().partition("=") for part in text.split(",")]
    if any(not key or not equals for key, equals, _ in pairs):
        raise SettingsError(f"{name}: expected key=value, comma-separated, got {text!r}")
    return tuple((key, value) for key, _, value in pairs)


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    number = _number(environment, name, default)
    if not 1 <= number <= 65535:
        raise SettingsError(f"{name}: expected a port, got {number}")
    return number


def _seconds(environment: Mapping[str, str], name: str, default: timedelta) -> timedelta:
    return timedelta(seconds=_positive(environment, name, int(default.total_seconds()), "number of seconds"))


def _positive(environment: Mapping[str, str], name: str, default: int, what: str = "number") -> int:
    number = _number(environment, name, default)
    if number < 1:
        raise SettingsError(f"{name}: expected a positive {what}, got {number}")
    return number


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    try:
        return int(text) if text else default
    except ValueError as error:
        raise SettingsError(f"{name}: expected a whole number, got {text!r}") from error
