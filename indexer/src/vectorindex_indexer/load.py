"""Reads all live rows and builds an index of them: a candidate, to be proven by a cycle before anybody searches it.

Rows are read in ranges of ids, each in a short transaction of its own, so that no snapshot is held for long. What changes meanwhile
is for the cycle to follow: it compares every row of the candidate with what Postgres says by then.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from vectorindex_indexer.belief import Belief
from vectorindex_indexer.config import IndexSpec, IndexType
from vectorindex_indexer.controls import check_matches, check_not_empty, check_not_older
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.index import Builder, encode, threads_from_cgroup
from vectorindex_indexer.keys import IdKind, Ids, join_ids, no_ids
from vectorindex_indexer.ledger import Bucket, Words, build_ledger, make_bucket
from vectorindex_indexer.memory import Room, check_memory, read_room
from vectorindex_indexer.names import SourceReason
from vectorindex_indexer.rows import Range, Rows
from vectorindex_indexer.source import Source, Unit

EVERYTHING: Final = Range(None, None)
GRAPH_RANGE_BYTES: Final = 64 * 2**20
"""Vectors read in one transaction where adding them takes long: they are kept until it has ended."""
RANGE_BYTES: Final = 256 * 2**20
"""Vectors read in one transaction where they only have to be copied: about a second."""
RANGE_SECONDS: Final = 600.0
"""Longest time for one range."""
WHOLE_SECONDS: Final = 6 * 3600.0
"""Longest time for a table that no index serves in ranges: one transaction has to do."""
SAMPLE_ROWS: Final = 10_000  # of a training sample, read at a time

_ID_BYTES: Final = {IdKind.INTEGER: 8, IdKind.UUID: 16, IdKind.TEXT: 48}  # of a text: a guess

Progress = Callable[[int, int], None]


def load_candidate(
    source: Source, spec: IndexSpec, *, generation: int, proven_rows: int, progress: Progress, room: Room | None = None
) -> Belief:
    """Return ledger and view of the live rows.

    `progress` is told (rows read, rows expected); what it raises ends the load. `proven_rows` guards against an empty answer. `room` is
    the memory that may be used; what the cgroup allows when not given. Raises SourceError, LoadRefusedError where the index would not
    fit, or InconclusiveError where there are no rows to be seen.
    """
    with source.unit(seconds=RANGE_SECONDS) as unit:
        live = unit.count_live()
        survey = unit.survey(live)
        check_matches(survey, source.spec)
        check_not_empty(survey, 0, proven_rows)
        check_memory(spec, live, _ID_BYTES[unit.id_kind], room or read_room())
        builder = Builder(spec, unit.id_kind, live, threads_from_cgroup(), generation)
        sample = draw_sample(unit, builder.needs_training) if builder.needs_training else None
        first = unit
    if sample is not None:
        builder.train(sample)
        del sample
    load = _Load(source, spec, builder, first, progress)
    load.run(live)
    return Belief(build_ledger(load.collect(), first.id_kind), builder.finish(), load.first, first.digest_spec, latest=load.last)


def draw_sample(unit: Unit, rows: int) -> np.ndarray:
    """Return the vectors of so many rows, drawn at random, (n, d) float32; fewer where some are in quarantine."""
    ids = unit.sample_ids(rows)
    parts = (unit.rows(ids[start : start + SAMPLE_ROWS]) for start in range(0, ids.size, SAMPLE_ROWS))
    return np.concatenate([part.vectors[part.quarantine == 0] for part in parts])


class _Load:
    """Reads ranges one after the other, and gives their rows to the builder and their entries to the ledger."""

    def __init__(self, source: Source, spec: IndexSpec, builder: Builder, unit: Unit, progress: Progress) -> None:
        self.source = source
        self.spec = spec
        self.builder = builder
        self.kind = unit.id_kind
        self.seconds = RANGE_SECONDS if unit.id_index else WHOLE_SECONDS
        self.digest_spec = unit.digest_spec
        self.progress = progress
        self.first = self.last = unit.as_of
        self.entries: list[tuple[Ids, Words, Words, Words, np.ndarray]] = []
        self.live = self.done = 0

    def run(self, live: int) -> None:
        """Read everything, about `live` rows."""
        self.live = live
        self.progress(0, live)
        after: int | bytes | None = None
        is_last = False
        while not is_last:
            with self.source.unit(seconds=self.seconds) as unit:
                self.check_same(unit)
                one, is_last = unit.next_range(after, self.rows_in_range) if unit.id_index else (EVERYTHING, True)
                kept = [rows for rows in unit.stream(one) if self.keep(rows)]
            for rows in kept:
                self.add(rows)
            after = one.high

    @property
    def rows_in_range(self) -> int:
        """How many rows are read in one transaction."""
        size = GRAPH_RANGE_BYTES if self.spec.type is IndexType.HNSW else RANGE_BYTES
        return max(1000, size // (4 * self.spec.dimension))

    def keep(self, rows: Rows) -> bool:
        """Take rows that came; tell whether they are to be added later, as it takes long."""
        if self.spec.type is IndexType.HNSW:
            return True
        self.add(rows)
        return False

    def check_same(self, unit: Unit) -> None:
        """Raise unless the rows to come are of the same source as those before, and not older."""
        seen = self.last
        if (unit.as_of.incarnation, unit.as_of.fingerprint) != (seen.incarnation, seen.fingerprint) or unit.digest_spec != self.digest_spec:
            raise SourceError(SourceReason.SOURCE_ERROR, "the server, or the table's definition, changed during the load", retryable=True)
        check_not_older(unit.as_of, seen.incarnation, seen.snapshot)
        if self.done == 0:
            self.first = unit.as_of
        self.last = unit.as_of

    def add(self, rows: Rows) -> None:
        """Give rows to the builder, and note what the ledger has to know of them."""
        indexed = rows.quarantine == 0
        codes = encode(rows.vectors, self.spec.metric)
        digests = np.zeros(len(rows), np.uint64)
        if indexed.all():
            digests = self.builder.add(rows.ids, codes)
        else:
            digests[indexed] = self.builder.add(rows.ids[indexed], codes[indexed])
        self.entries.append((rows.ids, rows.stamps, rows.digests, digests, rows.quarantine))
        self.done += len(rows)
        self.progress(self.done, max(self.live, self.done))

    def collect(self) -> Bucket:
        """Return all entries, in order."""
        entries, self.entries = self.entries, []
        if not entries:
            entries = [_no_entries(self.kind)]
        ids, *columns = zip(*entries, strict=True)
        stamps, digests, codes, quarantine = (np.concatenate(column) for column in columns)
        return make_bucket(join_ids(ids, self.kind), stamps, digests, codes, quarantine)


def _no_entries(kind: IdKind) -> tuple[Ids, Words, Words, Words, np.ndarray]:
    return no_ids(kind), np.empty(0, np.uint64), np.empty((0, 2), np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint8)
