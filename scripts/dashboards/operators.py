"""Dashboard Operator: does it act, how fast, and what waits for it."""

from typing import Final

from .consistency import CONDITION, RESOURCE, condition, counted
from .parts import GREEN, GREY, ORANGE, RED, YELLOW, Board, Query, Row, State, choice, graph, note, number, timeline

POD: Final = 'namespace=~"$namespace", pod=~"$pod"'
OWN: Final = 'pod=~"$pod"'
"""For what the operator says of a VectorIndex: there `namespace` is that of the VectorIndex."""
EACH: Final = "{{pod}}"
_SECONDS: Final = "vectorindex_operator_reconcile_duration_seconds"
_IS_OPERATOR: Final = f"and on (namespace, pod) vectorindex_operator_leading{{{POD}}}"


def of_operator(metric: str, by: str = "namespace, pod") -> str:
    """Return a gauge of the chosen operators, once each however often it is scraped."""
    return f"max by ({by}) ({metric}{{{POD}}})"


def per_second(metric: str, by: str) -> str:
    """Return what a counter of the chosen operators gains a second."""
    return f"sum by ({by}) (rate({metric}{{{POD}}}[$__rate_interval]))"


def gained(metric: str, by: str) -> str:
    """Return what a counter of the chosen operators gained within the last interval."""
    return f"sum by ({by}) (increase({metric}{{{POD}}}[$__rate_interval]))"


def quantile(share: float, metric: str) -> str:
    """Return below which time that share of a histogram's observations took; nothing where there were none."""
    return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{POD}}}[$__rate_interval]))) > 0"


def having(kind: str, status: str) -> str:
    """Return how many VectorIndexes have a condition with this status."""
    return f'sum(max by (namespace, name) (vectorindex_operator_condition{{{OWN}, type="{kind}", status="{status}"}}))'


LEADING: Final = (State(1, "leads", GREEN), State(0, "stands by", GREY))

NOTE: Final = note(
    "Does the operator act? Without it indexes serve, check and repair on; changes of VectorIndexes wait, and their status stands still.",
    "VectorIndexOperatorDown",
    "VectorIndexOperatorNotLeading",
    "VectorIndexReconcileErrors",
    "VectorIndexWatchesBlind",
    "VectorIndexWaitingForImage",
    "VectorIndexStalled",
)

TOP: Final = (
    number(
        "Leaders",
        "Operators that act: one in each namespace where one is installed.",
        "none",
        Query(f"sum by (namespace) ({of_operator('vectorindex_operator_leading')})", "{{namespace}}"),
        nothing="No operator",
        rising=((0.0, RED), (1, GREEN), (2, RED)),
        runbook="VectorIndexOperatorNotLeading",
    ),
    number(
        "VectorIndexes",
        "VectorIndexes that the operator serves.",
        "none",
        Query(f'count(max by (namespace, name) (vectorindex_operator_condition{{{OWN}, type="Ready", status="True"}}))', "all"),
        nothing="None",
    ),
    number(
        "Not consistent",
        "VectorIndexes whose condition Consistent is False or Unknown.",
        "none",
        Query(f"{having('Consistent', 'False')}\n+ {having('Consistent', 'Unknown')}", "all"),
        (1, RED),
        nothing="None known",
    ),
    number(
        "Stalled",
        "VectorIndexes that wait for a person to do something.",
        "none",
        Query(having("Stalled", "True"), "all"),
        (1, ORANGE),
        nothing="None known",
        runbook="VectorIndexStalled",
    ),
    number(
        "Wait for an image",
        "VectorIndexes whose turn to get the operator's indexer image has not come yet.",
        "none",
        Query(f"sum(max by (namespace) (vectorindex_operator_waiting_for_image{{{POD}}}))", "all"),
        (1, YELLOW),
        nothing="No operator",
        runbook="VectorIndexWaitingForImage",
    ),
    number(
        "Queue",
        "VectorIndexes that wait to be looked at.",
        "none",
        Query(f"sum({of_operator('vectorindex_operator_queue_length')})", "all"),
        (50, YELLOW),
        (500, RED),
        nothing="No operator",
    ),
)

STATES: Final = (
    timeline(
        "Who leads",
        "Which operator acts; no bar where it gives no metrics.",
        LEADING,
        Query(of_operator("vectorindex_operator_leading"), EACH),
        span=12,
        height=8,
        nothing="No operator gives metrics",
        runbook="VectorIndexOperatorDown",
    ),
    timeline(
        "VectorIndexes that are Ready",
        "Condition Ready of each VectorIndex: at least max(1, replicas - 1) of its replicas serve.",
        CONDITION,
        Query(condition("Ready", OWN), RESOURCE),
        span=12,
        height=8,
        nothing="No VectorIndex",
        runbook="VectorIndexUnavailable",
    ),
)

WORK: Final = (
    graph(
        "Looks at VectorIndexes",
        "Looks a second, by how they ended. A conflict is normal: somebody else wrote first.",
        "cps",
        Query(per_second("vectorindex_operator_reconciles_total", "result"), "{{result}}"),
        stacked=True,
        runbook="VectorIndexReconcileErrors",
    ),
    graph(
        "Duration of a look",
        "Time of one look at one VectorIndex, with its writes: half are faster than p50, 99 of 100 faster than p99.",
        "s",
        *(Query(quantile(share, _SECONDS), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
        nothing="No look",
    ),
    graph(
        "Requests to the API server",
        "Requests a second of the operator's own client, by method and status; those about the Lease apart.",
        "reqps",
        Query(f"{per_second('vectorindex_operator_api_requests_total', 'method, code')} > 0", "{{method}} {{code}}"),
        Query(f"{per_second('vectorindex_operator_lease_requests_total', 'method, code')} > 0", "Lease {{method}} {{code}}"),
        stacked=True,
        nothing="No request",
    ),
    graph(
        "Writes",
        "Successful writes, by kind of object, within the interval of the graph. None while nothing changes.",
        "none",
        Query(f"{counted('vectorindex_operator_writes_total', 'kind', POD)} > 0", "{{kind}}"),
        stacked=True,
        steps=True,
        nothing="No write",
    ),
)

HEALTH: Final = (
    graph(
        "Delay of event loops",
        "Longest delay of an event loop within the last half minute. The Lease is renewed by a loop of its own.",
        "s",
        Query(of_operator("vectorindex_operator_event_loop_lag_seconds", "namespace, pod, loop"), f"{EACH} {{{{loop}}}}"),
        limit=(1, RED),
    ),
    graph(
        "Watches begun anew",
        "Restarts of the watches within the interval of the graph: after an error, or because a list showed what they had not told.",
        "none",
        Query(gained("vectorindex_operator_watch_restarts_total", "namespace, pod"), f"{EACH} after an error"),
        Query(gained("vectorindex_operator_blind_watches_total", "namespace, pod"), f"{EACH} blind"),
        steps=True,
        runbook="VectorIndexWatchesBlind",
    ),
    graph(
        "Memory",
        "Memory of each operator.",
        "bytes",
        Query(f"max by (namespace, pod) (process_resident_memory_bytes{{{POD}}}) {_IS_OPERATOR}", EACH),
    ),
    graph(
        "Processor",
        "Processors that each operator keeps busy.",
        "none",
        Query(f"sum by (namespace, pod) (rate(process_cpu_seconds_total{{{POD}}}[$__rate_interval])) {_IS_OPERATOR}", EACH),
    ),
)

HEALING: Final = (
    graph(
        "Alerts told to the webhook",
        "Alerts that Alertmanager told the operator of, by what became of them, within the interval of the graph.",
        "none",
        Query(f"{gained('vectorindex_operator_heal_requests_total', 'outcome')} > 0", "{{outcome}}"),
        stacked=True,
        steps=True,
        nothing="No alert told",
    ),
    graph(
        "Duration of the webhook's answers",
        "From a request to the webhook to its answer: half are faster than p50, 99 of 100 faster than p99.",
        "s",
        *(Query(quantile(share, "vectorindex_operator_heal_duration_seconds"), f"p{share * 100:g}") for share in (0.5, 0.99)),
        nothing="No request",
    ),
)

BOARD: Final = Board(
    "operator",
    "Operator",
    "Whether the operator acts, how fast, and what waits for it.",
    (
        choice("namespace", "Namespace of the operator", "label_values(vectorindex_operator_leading, namespace)"),
        choice("pod", "Operator", 'label_values(vectorindex_operator_leading{namespace=~"$namespace"}, pod)', every=""),
    ),
    (Row("", (NOTE, *TOP)), Row("State", STATES), Row("Work", WORK), Row("Healing on alerts", HEALING), Row("Health", HEALTH)),
    'alertname=~"VectorIndex(Operator.+|ReconcileErrors|WatchesBlind|WaitingForImage)", namespace=~"$namespace"',
)
