"""Reads all live rows and builds an index of them: a candidate, to be proven by a cycle before anybody searches it."""

from collections.abc import Callable

from vectorindex_indexer.config import IndexSpec
from vectorindex_indexer.cycle import Belief, check_matches, check_not_empty, encode_rows
from vectorindex_indexer.index import Builder, threads_from_cgroup
from vectorindex_indexer.keys import no_ids
from vectorindex_indexer.ledger import build_ledger
from vectorindex_indexer.rows import Range, Rows
from vectorindex_indexer.source import Source

EVERYTHING = Range(None, None)


def load_candidate(
    source: Source,
    spec: IndexSpec,
    *,
    generation: int,
    proven_rows: int,
    progress: Callable[[int, int], None],
) -> Belief:
    """Return ledger and view of the live rows of one snapshot.

    `progress` is told (rows read, rows expected); what it raises ends the load. `proven_rows` guards against an empty answer.
    Raises SourceError, or InconclusiveError where there are no rows to be seen.
    """
    with source.unit(seconds=3600) as unit:
        survey = unit.survey(int(unit.totals(no_ids(unit.id_kind), EVERYTHING).counts.sum()))
        check_matches(survey, source.spec)
        check_not_empty(survey, 0, proven_rows)
        as_of, digest_spec, kind = unit.as_of, unit.digest_spec, unit.id_kind
        parts = []
        read = 0
        progress(0, survey.live)
        for part in unit.stream(EVERYTHING):
            parts.append(part)
            read += len(part)
            progress(read, survey.live)
    rows = Rows.concatenate(parts, spec.dimension, kind)
    del parts
    encoded = encode_rows(rows, spec.metric)
    indexed = rows.quarantine == 0
    ids, codes = rows.ids[indexed], encoded.codes[indexed]
    builder = Builder(spec, kind, ids.size, threads_from_cgroup(), generation)
    if builder.needs_training:
        builder.train(codes[: builder.needs_training])
    encoded.digests[indexed] = builder.add(ids, codes)
    return Belief(build_ledger(encoded.to_bucket(), kind), builder.finish(), as_of, digest_spec)
