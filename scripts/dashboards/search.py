"""Dashboard Search: what those who search notice."""

from typing import Final

from .consistency import INDEX, INDEX_VARIABLES, NAMED, ON, POD, REPLICA, RESOURCE, gained, of_replica, per_second, quantile
from .parts import GREEN, ORANGE, RED, YELLOW, Board, Query, Row, durations, graph, note, number

_REQUESTS: Final = "vectorindex_search_requests_total"
_SECONDS: Final = "vectorindex_search_duration_seconds"
_ALL: Final = per_second(_REQUESTS, "namespace, index")
_FAILED: Final = f'sum by (namespace, index) (rate({_REQUESTS}{{{POD}, code=~"5.."}}[$__rate_interval]))'
ERRORS: Final = f"({_FAILED} or 0 * {_ALL})\n/ ({_ALL} > 0)"
"""Share of searches that ended with an error of the server; nothing where nobody searches."""
RECALL: Final = 0.9  # as the alert VectorIndexRecallLow has it
ERROR_RATIO: Final = 0.05  # as the alert VectorIndexSearchErrors has it

NOTE: Final = note(
    "What do those who search notice: how many searches, how fast, how many fail, and how many of the true nearest rows they find?",
    "VectorIndexSearchErrors",
    "VectorIndexRecallLow",
    "VectorIndexUnavailable",
    "VectorIndexDegraded",
)

TOP: Final = (
    number("Searches", "Search requests answered a second.", "reqps", Query(f"sum({_ALL})", "all"), nothing="No replica", decimals=1),
    number(
        "Errors",
        "Share of searches that end with a status of 500 or more, of the index where it is worst; nothing while nobody searches.",
        "percentunit",
        Query(f"max({ERRORS})", "errors"),
        (0.01, YELLOW),
        (ERROR_RATIO, RED),
        nothing="No searches",
        decimals=2,
        runbook="VectorIndexSearchErrors",
    ),
    number(
        "Duration (p99)",
        "99 of 100 searches are answered faster, of the index where it is slowest.",
        "s",
        Query(f"max({quantile(0.99, _SECONDS, 'namespace, index')} > 0)", "p99"),
        (0.1, YELLOW),
        (1, RED),
        nothing="No searches",
    ),
    number(
        "Recall",
        "Share of the true nearest rows that sampled searches find, of the replica where it is least.",
        "percentunit",
        Query(f"min({of_replica('vectorindex_recall_ratio')})", "recall"),
        nothing="Not measured",
        decimals=1,
        rising=((0.0, RED), (RECALL, YELLOW), (0.95, GREEN)),
        runbook="VectorIndexRecallLow",
    ),
    number(
        "Replicas that serve",
        "Share of the pods of all chosen indexes that answer searches.",
        "percentunit",
        Query(
            f'sum(max by (namespace, name) (vectorindex_operator_members{{{NAMED}, serving="true"}}))\n'
            f"/ (sum(max by (namespace, name, serving) (vectorindex_operator_members{{{NAMED}}})) > 0)",
            "serve",
        ),
        nothing="No operator",
        decimals=0,
        rising=((0.0, RED), (0.5, ORANGE), (1, GREEN)),
        runbook="VectorIndexDegraded",
    ),
    number(
        "In flight",
        "Search requests that are being answered now.",
        "none",
        Query(f"sum({of_replica('vectorindex_search_in_flight')})", "all"),
    ),
)

TRAFFIC: Final = (
    graph(
        "Searches by status",
        "Search requests answered, by HTTP status.",
        "reqps",
        Query(per_second(_REQUESTS, "code"), "{{code}}"),
        stacked=True,
    ),
    graph(
        "Searches by replica",
        "Search requests answered, by replica: the Service spreads connections, not requests.",
        "reqps",
        Query(per_second(_REQUESTS, ON), REPLICA),
        stacked=True,
    ),
    graph(
        "Share of errors",
        "Share of searches that end with a status of 500 or more. VectorIndexSearchErrors tells of what is above the line.",
        "percentunit",
        Query(ERRORS, INDEX),
        limit=(ERROR_RATIO, RED),
        nothing="No searches",
        runbook="VectorIndexSearchErrors",
    ),
    graph(
        "Searches in flight",
        "Search requests that are being answered, as each scrape found them.",
        "none",
        Query(of_replica("vectorindex_search_in_flight"), REPLICA),
        stacked=True,
    ),
)

SPEED: Final = (
    graph(
        "Duration of searches",
        "From a request's first byte read to its answer written: half are faster than p50, 99 of 100 faster than p99.",
        "s",
        *(Query(f"{quantile(share, _SECONDS, 'namespace, index')} > 0", f"{INDEX} p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
        nothing="No searches",
    ),
    durations(
        "Searches by duration",
        "How many searches took how long, within the interval of the graph.",
        gained(f"{_SECONDS}_bucket", "le"),
        nothing="No searches",
    ),
    graph(
        "Queries searched together",
        "Mean number of queries that one call of FAISS answered: what queues up while one search runs is searched as one batch.",
        "none",
        Query(
            f"{per_second('vectorindex_search_batch_queries_sum', ON)}\n/ ({per_second('vectorindex_search_batch_queries_count', ON)} > 0)",
            REPLICA,
        ),
        nothing="No searches",
    ),
    graph(
        "Rows in the delta",
        "Rows that came since the last build. They are searched exactly, one by one: many of them make searches slower.",
        "locale",
        Query(of_replica("vectorindex_delta_rows"), REPLICA),
        steps=True,
    ),
)

QUALITY: Final = (
    graph(
        "Recall of each replica",
        "Share of the true nearest rows that sampled searches find. Below the line is what VectorIndexRecallLow tells of.",
        "percentunit",
        Query(of_replica("vectorindex_recall_ratio"), REPLICA),
        limit=(RECALL, RED),
        from_zero=False,
        nothing="Not measured",
        top=1,
        runbook="VectorIndexRecallLow",
    ),
    graph(
        "Pods that serve",
        "Pods of each index, by whether they serve.",
        "none",
        Query(
            f'max by (namespace, name) (vectorindex_operator_members{{{NAMED}, serving="true"}})',
            f"{RESOURCE} serving",
        ),
        Query(f'max by (namespace, name) (vectorindex_operator_members{{{NAMED}, serving="false"}})', f"{RESOURCE} not serving"),
        stacked=True,
        steps=True,
        nothing="No operator",
        runbook="VectorIndexUnavailable",
    ),
)

BOARD: Final = Board(
    "search",
    "Search",
    "How many searches, how fast, how many fail, and how many of the nearest rows they find.",
    INDEX_VARIABLES,
    (Row("", (NOTE, *TOP)), Row("Traffic", TRAFFIC), Row("Speed", SPEED), Row("Quality", QUALITY)),
    'alertname=~"VectorIndex(SearchErrors|RecallLow|Unavailable|Degraded)", namespace=~"$namespace"',
)
