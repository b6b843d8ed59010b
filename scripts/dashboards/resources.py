"""Dashboard Builds and resources: what indexes cost in time, memory and processor."""

from typing import Final

from .consistency import INDEX, INDEX_VARIABLES, POD, REPLICA, counted, gained, of_replica, quantile
from .parts import RED, YELLOW, Board, Query, Row, durations, graph, note, number

KIND: Final = 'namespace=~"$namespace", pod=~"$pod"'
_ALIVE: Final = f"and on (namespace, pod) vectorindex_view_bytes{{{POD}}}"


def of_process(metric: str) -> str:
    """Return a metric that each process has, of index pods only: it has no label `index`."""
    return f"max by (namespace, pod) ({metric}{{{KIND}}}) {_ALIVE}"


_BUILD: Final = "vectorindex_build_duration_seconds"
_VIEW: Final = of_replica("vectorindex_view_bytes")
_VECTORS: Final = of_replica("vectorindex_vectors")
_RESIDENT: Final = of_process("process_resident_memory_bytes")
LIMIT: Final = f'max by (namespace, pod) (kube_pod_container_resource_limits{{{KIND}, container="indexer", resource="memory"}}) {_ALIVE}'
"""Of kube-state-metrics: where that is not scraped, there is nothing."""
STARTS: Final = f"sum by (namespace, pod) (changes(process_start_time_seconds{{{KIND}}}[$__range])) {_ALIVE}"

NOTE: Final = note(
    "What do indexes cost? Builds and starts, memory, processor. Only the limits of memory are metrics of others, of kube-state-metrics.",
    "VectorIndexWaitingForImage",
    "VectorIndexDegraded",
)

TOP: Final = (
    number(
        "Memory of views",
        "Memory of all indexes that are searched.",
        "bytes",
        Query(f"sum({_VIEW})", "all"),
        nothing="No replica",
        decimals=1,
    ),
    number(
        "Bytes a vector",
        "Memory of a view by the vectors it holds, of the index where it is most.",
        "bytes",
        Query(f"max({_VIEW} / ({_VECTORS} > 0))", "all"),
        nothing="No vectors",
        decimals=0,
    ),
    number(
        "Fullest replica",
        "Memory of a process as a share of its limit, where it is most; needs kube-state-metrics.",
        "percentunit",
        Query(f"max(({_RESIDENT})\n/ on (namespace, pod) ({LIMIT}))", "of its limit"),
        (0.8, YELLOW),
        (0.95, RED),
        nothing="No limit known",
        decimals=0,
    ),
    number(
        "Restarts",
        "Starts of a container within the time shown, beside its first.",
        "none",
        Query(f"sum({STARTS})", "restarts"),
        (1, YELLOW),
        (5, RED),
        nothing="No replica",
    ),
    number(
        "Builds",
        "Indexes built from all rows within the time shown.",
        "none",
        Query(f"round(sum(increase({_BUILD}_count{{{POD}}}[$__range])))", "builds"),
        nothing="No replica",
        decimals=0,
    ),
    number(
        "Build (p99)",
        "99 of 100 builds within the time shown were faster, as near as the buckets of the histogram tell.",
        "s",
        Query(f"histogram_quantile(0.99, sum by (le) (increase({_BUILD}_bucket{{{POD}}}[$__range]))) > 0", "p99"),
        nothing="No build",
    ),
)

BUILDS: Final = (
    graph(
        "Generation",
        "Generation of the index that each replica searches: it grows with each rebuild, and begins anew with a lost disk.",
        "none",
        Query(f"{of_replica('vectorindex_generation')} > 0", REPLICA),
        steps=True,
        nothing="None built yet",
    ),
    durations(
        "Builds by duration",
        "How many builds took how long: reading all rows and building an index of them.",
        gained(f"{_BUILD}_bucket", "le"),
        nothing="No build",
    ),
    graph(
        "Starts from disk",
        "Attempts to start from the saved index within the interval of the graph, by result: `loaded`, `absent`, or why it was refused.",
        "none",
        Query(counted("vectorindex_saved_index_loads_total", "result"), "{{result}}"),
        stacked=True,
        steps=True,
        nothing="No start yet",
    ),
    graph(
        "Restarts over time",
        "Starts of containers, within the interval of the graph.",
        "none",
        Query(
            f"sum by (namespace, pod) (changes(process_start_time_seconds{{{KIND}}}[$__rate_interval])) {_ALIVE}", "{{namespace}}/{{pod}}"
        ),
        steps=True,
    ),
)

MEMORY: Final = (
    graph(
        "Memory of each process",
        "Memory of each process, and (dashed) its limit, where kube-state-metrics tells it. A rebuild needs more for a while.",
        "bytes",
        Query(_RESIDENT, "{{namespace}}/{{pod}}"),
        Query(LIMIT, "{{namespace}}/{{pod}} limit"),
        dashed="limit$",
        nothing="No replica",
    ),
    graph(
        "Memory of each view",
        "Memory of the index that is searched; the rest of a process is ledger, buffers and code.",
        "bytes",
        Query(_VIEW, REPLICA),
    ),
    graph(
        "Vectors",
        "Vectors that can be found by a search.",
        "locale",
        Query(_VECTORS, REPLICA),
        steps=True,
    ),
    graph(
        "Dead rows and delta",
        "Rows still in FAISS that are never answered, and rows that came since the last build: both cost memory until the next.",
        "locale",
        Query(of_replica("vectorindex_dead_rows"), f"{REPLICA} dead"),
        Query(of_replica("vectorindex_delta_rows"), f"{REPLICA} delta"),
        steps=True,
    ),
)

PROCESS: Final = (
    graph(
        "Processor",
        "Processors that each process keeps busy.",
        "none",
        Query(f"sum by (namespace, pod) (rate(process_cpu_seconds_total{{{KIND}}}[$__rate_interval])) {_ALIVE}", "{{namespace}}/{{pod}}"),
    ),
    graph(
        "Duration of builds",
        "Reading all rows and building an index of them: half of the builds are faster than p50, 99 of 100 faster than p99.",
        "s",
        Query(f"{quantile(0.5, _BUILD, 'namespace, index')} > 0", f"{INDEX} p50"),
        Query(f"{quantile(0.99, _BUILD, 'namespace, index')} > 0", f"{INDEX} p99"),
        nothing="No build",
    ),
)

BOARD: Final = Board(
    "resources",
    "Builds and resources",
    "Builds, starts, memory and processor of index pods.",
    INDEX_VARIABLES,
    (Row("", (NOTE, *TOP)), Row("Builds and starts", BUILDS), Row("Memory", MEMORY), Row("Process", PROCESS)),
)
