"""The operator's settings, read once from a mapping; what a user of a VectorIndex may not choose stands here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from vectorindex_operator import names
from vectorindex_operator.errors import SettingsError

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
PULL_POLICIES: Final = ("IfNotPresent", "Always", "Never")
EVERYWHERE: Final = "*"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


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
        log_level=_choice(environment, "VECTORINDEX_LOG_LEVEL", LOG_LEVELS, defaults.log_level),
        resync=_seconds(environment, "VECTORINDEX_RESYNC_SECONDS", defaults.resync),
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
    number = _number(environment, name, int(default.total_seconds()))
    if number < 1:
        raise SettingsError(f"{name}: expected a positive number of seconds, got {number}")
    return timedelta(seconds=number)


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    try:
        return int(text) if text else default
    except ValueError as error:
        raise SettingsError(f"{name}: expected a whole number, got {text!r}") from error
