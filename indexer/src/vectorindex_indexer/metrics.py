"""Declares every metric of a replica, and gives one function for each thing that happens; what happens is decided by others."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from vectorindex_indexer.names import DriftKind, QuarantineReason, Result

CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_LATEST

LAYERS: Final = ("L0", "L1", "L2")

# A search takes a fraction of a millisecond to seconds, a check milliseconds to minutes, a build seconds to hours.
_SEARCH_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CHECK_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BUILD_SECONDS: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_BATCH_QUERIES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class ViewSizes(Protocol):
    """What of a view is measured."""

    @property
    def generation(self) -> int:
        """Which build of the index it is."""

    @property
    def live_rows(self) -> int:
        """Rows that can be found."""

    @property
    def dead_rows(self) -> int:
        """Rows in FAISS that are never answered."""

    @property
    def delta_rows(self) -> int:
        """Rows that are searched exactly, beside the segments."""

    @property
    def bytes(self) -> int:
        """Memory."""


class Metrics:
    """The metrics of one process: each has the label `index`, the name of the VectorIndex; pod and namespace are added by Prometheus.

    Label values are closed sets or codes, never ids or free text. Safe to use from any thread.
    """

    def __init__(self, index: str) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads
        self.registry = CollectorRegistry()
        self._index = index
        self._declare_checks()
        self._declare_repairs()
        self._declare_view()
        self._declare_search()
        prometheus_client.ProcessCollector(registry=self.registry)
        self._touch()

    def _declare_checks(self) -> None:
        self._check_result = self._gauge("check_result", "1 for the result of the last check, 0 for the others.", "result")
        self._checks = self._counter(
            "checks", "Checks finished, by layer (L0 source-ledger, L1 ledger-FAISS, L2 answers) and result.", "layer", "result"
        )
        self._conclusive = self._gauge(
            "last_conclusive_check_timestamp_seconds", "When a check last ended ok or drift, in Unix time; 0 for never in this process."
        )
        self._source_rows = self._gauge("source_rows", "Live rows in Postgres, as the last check counted them.")
        self._vectors = self._gauge("vectors", "Vectors that can be found by a search, as of the last check.")
        self._drift = self._gauge("drift_rows", "Rows that differ from Postgres now, by kind; 0 once repaired and compared again.", "kind")
        self._quarantined = self._gauge(
            "quarantined_rows", "Live rows kept out of the index because of their content, by reason.", "reason"
        )
        self._oldest = self._gauge(
            "oldest_bucket_compared_timestamp_seconds",
            "When the bucket was compared by content that was not for longest, in Unix time; 0 while one never was in this process.",
        )
        self._recall = self._gauge(
            "recall_ratio", "Share of the nearest rows that sampled searches found, of exact search over the same codes."
        )
        self._source_busy = self._counter("source_busy_seconds", "Time for which checks kept Postgres busy.")
        self._attainable = self._gauge(
            "attainable_period_seconds", "Time between two checks that keeps to maxSourceDutyPercent; more than periodSeconds delays them."
        )
        self._period = self._gauge("check_period_seconds", "periodSeconds: the time between two checks that is asked for.")
        self._staleness = self._gauge("max_staleness_seconds", "maxStalenessSeconds: the age at which a proof ceases to count.")
        self._check_seconds = self._histogram(
            "check_duration_seconds", "Duration of a check, with its repair if it made one.", _CHECK_SECONDS
        )

    def _declare_repairs(self) -> None:
        self._synchronised = self._counter(
            "synchronised_rows", "Rows that followed a change made in Postgres; normal life, not drift.", "kind"
        )
        self._repaired = self._counter("repaired_rows", "Drifted rows that were repaired and compared again, by kind.", "kind")
        self._repairs = self._counter("repairs", "Repairs finished.", "action", "trigger", "result")
        self._held = self._gauge("repair_held", "1 while a change waits for approval.")
        self._pending = self._gauge("pending_rows", "Rows that changed in Postgres and may not be followed yet: suspended, or held.")
        self._saved_index_loads = self._counter("saved_index_loads", "Attempts to start from the index saved on disk, by result.", "result")

    def _declare_view(self) -> None:
        self._build_seconds = self._histogram(
            "build_duration_seconds", "Duration of reading all rows and building an index of them.", _BUILD_SECONDS
        )
        self._generation = self._gauge("generation", "Generation of the index that is searched; grows with each rebuild.")
        self._dead_rows = self._gauge("dead_rows", "Rows still in FAISS that are never answered.")
        self._delta_rows = self._gauge("delta_rows", "Rows in the delta, which is searched exactly.")
        self._view_bytes = self._gauge("view_bytes", "Memory of the index that is searched.")
        self._build_info = self._gauge(
            "build_info", "Always 1; versions and kind of index.", "version", "faiss_version", "index_type", "metric"
        )

    def _declare_search(self) -> None:
        self._requests = self._counter("search_requests", "Search requests answered, by HTTP status code.", "code")
        self._search_seconds = self._histogram(
            "search_duration_seconds", "From a search request's first byte read to its answer written.", _SEARCH_SECONDS
        )
        self._batch_queries = self._histogram("search_batch_queries", "Queries that were searched together.", _BATCH_QUERIES)
        self._in_flight = self._gauge("search_in_flight", "Search requests being answered now.")

    def _touch(self) -> None:
        """Make the series of closed sets exist from the start: what appears only with its first event has no rate."""
        for result in Result:
            self._check_result.labels(self._index, result).set(result is Result.UNKNOWN)
            for layer in LAYERS:
                self._checks.labels(self._index, layer, result)
        for kind in DriftKind:
            self._drift.labels(self._index, kind)
            self._repaired.labels(self._index, kind)
        for reason in QuarantineReason:
            self._quarantined.labels(self._index, reason)
        for change in ("inserted", "updated", "deleted"):
            self._synchronised.labels(self._index, change)
        for single in (
            self._conclusive,
            self._oldest,
            self._source_busy,
            self._attainable,
            self._period,
            self._staleness,
            self._held,
            self._pending,
            self._source_rows,
            self._vectors,
            self._generation,
            self._dead_rows,
            self._delta_rows,
            self._view_bytes,
        ):
            single.labels(self._index)
        for histogram in (self._check_seconds, self._build_seconds):
            histogram.labels(self._index)
        # The search path is hot: its children are looked up once.
        self._hot_seconds = self._search_seconds.labels(self._index)
        self._hot_batch = self._batch_queries.labels(self._index)
        self._hot_in_flight = self._in_flight.labels(self._index)
        self._hot_requests = {200: self._requests.labels(self._index, "200")}

    def build(self, version: str, faiss_version: str, index_type: str, metric: str) -> None:
        """Tell once what runs here."""
        self._build_info.labels(self._index, version, faiss_version, index_type, metric).set(1)

    def asked_for(self, period: timedelta, staleness: timedelta) -> None:
        """Tell how often checks should be made, and how old a proof may become."""
        self._period.labels(self._index).set(period.total_seconds())
        self._staleness.labels(self._index).set(staleness.total_seconds())

    def check_finished(
        self,
        result: Result,
        layers: Mapping[str, str],
        *,
        seconds: float,
        source_rows: int | None,
        vectors: int | None,
        conclusive_at: datetime | None,
    ) -> None:
        """Count a check that ended. `layers` maps L0 and L1 to results; a number that could not be read is None and leaves the old one."""
        for each in Result:
            self._check_result.labels(self._index, each).set(each is result)
        for layer, of_layer in layers.items():
            self._checks.labels(self._index, layer, Result(of_layer)).inc()
        self._check_seconds.labels(self._index).observe(seconds)
        if source_rows is not None:
            self._source_rows.labels(self._index).set(source_rows)
        if vectors is not None:
            self._vectors.labels(self._index).set(vectors)
        if conclusive_at is not None:
            self._conclusive.labels(self._index).set(conclusive_at.timestamp())

    def answers_examined(self, result: Result, recall: float | None) -> None:
        """Count a look at sampled answers."""
        self._checks.labels(self._index, "L2", result).inc()
        if recall is not None:
            self._recall.labels(self._index).set(recall)

    def source_kept_busy(self, seconds: float, attainable: float) -> None:
        """Count how long a check kept Postgres busy, and tell how often checks can be made for that."""
        self._source_busy.labels(self._index).inc(seconds)
        self._attainable.labels(self._index).set(attainable)

    def compared(self, oldest: datetime | None) -> None:
        """Tell when the bucket was compared by content that was not for longest."""
        self._oldest.labels(self._index).set(oldest.timestamp() if oldest else 0)

    def waiting(self, *, held: bool, pending_rows: int) -> None:
        """Tell what waits for somebody."""
        self._held.labels(self._index).set(held)
        self._pending.labels(self._index).set(pending_rows)

    def drift(self, rows: Mapping[DriftKind, int]) -> None:
        """Tell how many rows differ now; kinds not named differ in none."""
        for kind in DriftKind:
            self._drift.labels(self._index, kind).set(rows.get(kind, 0))

    def synchronised(self, inserted: int, updated: int, deleted: int) -> None:
        """Count rows that followed Postgres."""
        for change, rows in (("inserted", inserted), ("updated", updated), ("deleted", deleted)):
            self._synchronised.labels(self._index, change).inc(rows)

    def repaired(self, action: str, trigger: str, result: str, rows: Mapping[DriftKind, int]) -> None:
        """Count a repair that ended; `rows` are those that compared equal afterwards, by what they were before."""
        self._repairs.labels(self._index, action, trigger, result).inc()
        for kind, count in rows.items():
            self._repaired.labels(self._index, kind).inc(count)

    def quarantine(self, rows: Mapping[QuarantineReason, int]) -> None:
        """Tell how many live rows are kept out now; reasons not named keep out none."""
        for reason in QuarantineReason:
            self._quarantined.labels(self._index, reason).set(rows.get(reason, 0))

    def view(self, view: ViewSizes) -> None:
        """Tell the sizes of a view that was published."""
        self._vectors.labels(self._index).set(view.live_rows)
        self._generation.labels(self._index).set(view.generation)
        self._dead_rows.labels(self._index).set(view.dead_rows)
        self._delta_rows.labels(self._index).set(view.delta_rows)
        self._view_bytes.labels(self._index).set(view.bytes)

    def build_finished(self, seconds: float) -> None:
        """Count an index built from all rows."""
        self._build_seconds.labels(self._index).observe(seconds)

    def saved_index_loaded(self, result: str) -> None:
        """Count an attempt to start from disk: `loaded`, `absent`, or the reason of the refusal."""
        self._saved_index_loads.labels(self._index, result).inc()

    def search_started(self) -> None:
        """Count a search request that came in."""
        self._hot_in_flight.inc()

    def search_finished(self, code: int, seconds: float) -> None:
        """Count it as answered."""
        self._hot_in_flight.dec()
        child = self._hot_requests.get(code)
        if child is None:
            child = self._hot_requests.setdefault(code, self._requests.labels(self._index, str(code)))
        child.inc()
        self._hot_seconds.observe(seconds)

    def searched_together(self, queries: int) -> None:
        """Count one call of FAISS that answered so many queries."""
        self._hot_batch.observe(queries)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"vectorindex_{name}", documentation, ("index", *labels), registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"vectorindex_{name}", documentation, ("index", *labels), registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"vectorindex_{name}", documentation, ("index",), buckets=buckets, registry=self.registry)
