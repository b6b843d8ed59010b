"""All metrics of the operator. What stands for one VectorIndex is removed with it."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from vectorindex_operator.api import Status
from vectorindex_operator.names import ConditionStatus, ConditionType, DriftKind, HealOutcome, Key, Reason

RECONCILES: Final = Counter("vectorindex_operator_reconciles", "Looks at one VectorIndex, by how they ended.", ["result"])
for _result in ("ok", "conflict", "refused", "error", "defect"):
    RECONCILES.labels(result=_result)  # what appears only with its first event has no rate
RECONCILE_SECONDS: Final = Histogram("vectorindex_operator_reconcile_duration_seconds", "Time of one look at one VectorIndex.")
WRITES: Final = Counter("vectorindex_operator_writes", "Successful writes to the API server.", ["kind"])
API_REQUESTS: Final = Counter("vectorindex_operator_api_requests", "Requests of our own client to the API server.", ["method", "code"])
LEASE_REQUESTS: Final = Counter("vectorindex_operator_lease_requests", "Requests about the Lease, counted apart.", ["method", "code"])
LEADING: Final = Gauge("vectorindex_operator_leading", "1 while this operator is the one that acts.")
LOOP_LAG: Final = Gauge(
    "vectorindex_operator_event_loop_lag_seconds",
    "Longest delay of an event loop within the last half minute, or one that still lasts.",
    ["loop"],
)
RESTARTS: Final = Counter("vectorindex_operator_watch_restarts", "Restarts of the watches after they ended with an error.")
BLIND_WATCHES: Final = Counter("vectorindex_operator_blind_watches", "Restarts of the watches after a list showed what they had not told.")
WAITING_FOR_IMAGE: Final = Gauge(
    "vectorindex_operator_waiting_for_image", "VectorIndexes whose turn to get the operator's indexer image has not come yet."
)
QUEUE: Final = Gauge("vectorindex_operator_queue_length", "VectorIndexes that wait to be looked at.")
HEAL_REQUESTS: Final = Counter(
    "vectorindex_operator_heal_requests",
    "Alerts told to the webhook, by what became of them; a request that tells of none counts once.",
    ["outcome"],
)
for _outcome in HealOutcome:
    HEAL_REQUESTS.labels(_outcome)
HEAL_SECONDS: Final = Histogram(
    "vectorindex_operator_heal_duration_seconds",
    "Time from a request to the webhook to its answer.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)

CONDITION: Final = Gauge(
    "vectorindex_operator_condition", "1 for the status that a condition has, 0 for the others.", ["namespace", "name", "type", "status"]
)
MEMBERS: Final = Gauge("vectorindex_operator_members", "Pods of a VectorIndex, by whether they serve.", ["namespace", "name", "serving"])
ROWS: Final = Gauge("vectorindex_operator_rows", "Rows that all serving replicas hold; absent while they differ.", ["namespace", "name"])
DRIFT_ROWS: Final = Gauge(
    "vectorindex_operator_drift_rows", "Rows that differ from Postgres now, over all replicas.", ["namespace", "name", "kind"]
)
DISAGREE: Final = Gauge(
    "vectorindex_operator_replicas_disagree", "1 while two replicas differ though they read the same snapshot.", ["namespace", "name"]
)
HELD_PLANS: Final = Gauge("vectorindex_operator_held_plans", "Changes that wait for approval.", ["namespace", "name"])

_ALWAYS: Final = (ConditionType.READY, ConditionType.CONSISTENT, ConditionType.SOURCE_AVAILABLE)


def show_status(key: Key, status: Status) -> None:
    """Let the gauges of one VectorIndex say what its status says."""
    for kind in ConditionType:
        condition = status.condition(kind)
        for value in ConditionStatus:
            is_it = condition.status is value if condition else value is ConditionStatus.FALSE and kind not in _ALWAYS
            CONDITION.labels(*key, kind, value).set(is_it)
    serving = status.ready_replicas or 0
    MEMBERS.labels(*key, "true").set(serving)
    MEMBERS.labels(*key, "false").set((status.replicas or 0) - serving)
    for drift in DriftKind:
        counts = (getattr(member.drift, drift.value) for member in status.members if member.drift)
        DRIFT_ROWS.labels(*key, drift).set(sum(counts))
    HELD_PLANS.labels(*key).set(sum(not plan.approved for plan in status.held_plans))
    consistent = status.condition(ConditionType.CONSISTENT)
    DISAGREE.labels(*key).set(consistent is not None and consistent.reason == Reason.REPLICAS_DISAGREE)
    if status.rows is None:
        _remove(ROWS, [key])
    else:
        ROWS.labels(*key).set(status.rows)


def forget(key: Key) -> None:
    """Remove everything that stands for one VectorIndex."""
    _remove(CONDITION, ((*key, kind, value) for kind in ConditionType for value in ConditionStatus))
    _remove(MEMBERS, ((*key, serving) for serving in ("true", "false")))
    _remove(DRIFT_ROWS, ((*key, kind) for kind in DriftKind))
    _remove(HELD_PLANS, [key])
    _remove(DISAGREE, [key])
    _remove(ROWS, [key])


def _remove(gauge: Gauge, labels: Iterable[tuple[str, ...]]) -> None:
    for values in labels:
        gauge.remove(*values)
