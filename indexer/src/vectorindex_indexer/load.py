"""Reads all live rows and builds an index of them: a candidate, to be proven by a cycle before anybody searches it."""

from collections.abc import Callable

import numpy as np

from vectorindex_indexer.config import IndexSpec
from vectorindex_indexer.cycle import Belief, check_survey
from vectorindex_indexer.index import build_view, code_digests, encode, threads_from_cgroup
from vectorindex_indexer.ledger import NEVER, build_ledger, make_bucket
from vectorindex_indexer.rows import Range, Rows
from vectorindex_indexer.source import Source

EVERYTHING = Range(None, None)


def load_candidate(
    source: Source,
    spec: IndexSpec,
    *,
    generation: int,
    proven_rows: int,
    seconds: float,
    progress: Callable[[int, int], None],
) -> Belief:
    """Return ledger and view of the live rows of one snapshot.

    `progress` is told (rows read, rows expected); what it raises ends the load. `proven_rows` guards against an empty answer.
    Raises SourceError, or InconclusiveError where there are no rows to be seen.
    """
    with source.unit(seconds=seconds) as unit:
        survey = unit.survey()
        check_survey(survey, source.spec, 0, proven_rows)
        as_of, digest_spec = unit.as_of, unit.digest_spec
        parts = []
        read = 0
        progress(0, survey.live)
        for part in unit.stream(EVERYTHING):
            parts.append(part)
            read += len(part)
            progress(read, survey.live)
    rows = Rows.concatenate(parts, spec.dimension)
    del parts
    codes = encode(rows.vectors, spec.metric)
    indexed = rows.quarantine == 0
    digests = np.where(indexed, code_digests(codes), np.uint64(0))
    bucket = make_bucket(rows.ids, rows.stamps, rows.digests, digests, rows.quarantine)
    view = build_view(spec, rows.ids[indexed], codes[indexed], generation, threads_from_cgroup())
    return Belief(build_ledger(bucket), view, as_of, digest_spec, NEVER)
