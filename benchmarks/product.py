"""What the benchmark uses of the indexer: the one place that knows its functions, so that a change of them is followed here alone."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from tests.support.postgres import Address
from vectorindex_indexer import snapshot
from vectorindex_indexer.belief import Belief, Outcome, Terms
from vectorindex_indexer.config import IndexSpec, load_identity
from vectorindex_indexer.connect import Connector
from vectorindex_indexer.cycle import run_cycle
from vectorindex_indexer.index import code_digests, encode, threads_from_cgroup
from vectorindex_indexer.ledger import Bucket, parse_ledger
from vectorindex_indexer.load import EVERYTHING, load_candidate
from vectorindex_indexer.names import Result
from vectorindex_indexer.rows import AsOf
from vectorindex_indexer.source import Source

__all__ = ["Belief", "Subject", "Target", "encode", "threads_from_cgroup"]

SECONDS = 3600.0  # a unit of work may take this long here
DAY = 86_400.0


class Target:
    """Arrays that a load writes into; made once and used again, so that the price of fresh memory is paid before the clock runs."""

    def __init__(self, rows: int, dimension: int) -> None:
        self.ids = np.zeros(rows, np.int64)
        self.vectors = np.zeros((rows, dimension), np.float32)
        self.digests = np.zeros((rows, 2), np.uint64)


@dataclass(frozen=True)
class Subject:
    """One table as the indexer sees it, and the index it is to make of it."""

    source: Source
    spec: IndexSpec

    @classmethod
    def make(cls, address: Address, table: str, index: dict[str, Any], folder: Path) -> "Subject":
        """Return the subject for a manifest about this table; manifest and credentials are written into `folder`."""
        config = folder / "vectorindex.yaml"
        config.write_text(json.dumps(make_manifest(address, table, index)))
        (folder / "username").write_text(address.admin.username)
        (folder / "password").write_text(address.admin.password)
        identity = load_identity(config)
        connector = Connector(identity.source.postgres, credentials=folder, tls=folder, application_name="vectorindex bench")
        return cls(Source(identity.source, identity.index, connector), identity.index)

    # --- reading

    def stream(self, target: Target, *, digests: bool) -> int:
        """Read all live rows into arrays; return how many there were."""
        done = 0
        with self.source.unit(seconds=SECONDS) as unit:
            for rows in unit.stream(EVERYTHING, digests=digests):
                end = done + len(rows)
                target.ids[done:end] = rows.ids
                target.vectors[done:end] = rows.vectors
                if digests:
                    target.digests[done:end] = rows.digests
                done = end
        return done

    def read_totals(self, belief: Belief) -> None:
        """Ask for what tells moved buckets: counts and stamps, or stored digests, of every bucket in one pass."""
        with self.source.unit(seconds=SECONDS) as unit:
            unit.totals(belief.ledger.bounds, EVERYTHING)

    def read_content(self, belief: Belief) -> None:
        """Have every bucket digested from the bytes of its vectors. Raise AssertionError when one differs from the ledger."""
        ranges = [belief.ledger.range(position) for position in range(len(belief.ledger.buckets))]
        with self.source.unit(seconds=SECONDS) as unit:
            found = unit.digests(ranges)
        expect(found == [bucket.digest for bucket in belief.ledger.buckets], "the content sweep differs from the ledger")

    # --- building and proving

    def load(self) -> Belief:
        """Load and build, and prove nothing yet."""
        return load_candidate(self.source, self.spec, generation=1, proven_rows=0, progress=lambda *_: None)

    def prove(self, belief: Belief, *, whole: bool) -> Outcome:
        """Run one cycle."""
        terms = Terms(now=time.monotonic(), period=30.0, content_sweep=DAY, whole=whole, apply=True, deadline=SECONDS)
        return run_cycle(self.source, belief, terms, lambda _: None)

    def prove_clean(self, belief: Belief, *, whole: bool = False) -> Belief:
        """Run one cycle that has to find nothing. Raise AssertionError otherwise."""
        outcome = self.prove(belief, whole=whole)
        findings = outcome.findings
        expect(findings.result is Result.OK and not findings.drift.rows and not findings.followed.rows, f"not clean: {findings.message}")
        return outcome.belief

    def repair(self, belief: Belief, drifted: int) -> Belief:
        """Run one cycle that has to find and mend this much drift. Raise AssertionError otherwise."""
        outcome = self.prove(belief, whole=False)
        findings = outcome.findings
        expect(findings.result is Result.OK, f"not repaired: {findings.message}")
        expect(findings.drift.rows == drifted, f"expected {drifted} drifted rows, found {findings.drift.rows}")
        return outcome.belief

    # --- the saved index

    def save(self, folder: Path, belief: Belief) -> None:
        """Save the index as a replica does."""
        as_of = belief.as_of
        meta = snapshot.SavedMeta(
            name="bench",
            uid="",
            identity_hash="bench",
            digest_spec=belief.digest_spec,
            generation=belief.view.generation,
            root_digest=str(belief.root),
            as_of=snapshot.SavedAsOf(as_of.snapshot, as_of.incarnation, as_of.fingerprint, as_of.at.isoformat()),
            proven_at=as_of.at.isoformat(),
        )
        snapshot.save(folder, meta, belief.view, belief.ledger.to_arrays())

    def restore(self, folder: Path, as_of: AsOf) -> Belief:
        """Read the saved index back, with every file verified, and trust nothing yet."""
        saved = snapshot.load(folder, snapshot.Expected("bench", "", "bench", self.spec))
        return Belief(parse_ledger(saved.arrays), saved.view, as_of, saved.meta.digest_spec)


def make_manifest(address: Address, table: str, index: dict[str, Any]) -> dict[str, Any]:
    """Return the resource for a table of `data`, with its tombstones in the table itself."""
    digests = {"digests": {"columns": ["d1", "d2"]}} if table == data.DIGESTED else {}
    source: dict[str, Any] = digests | {
        "postgres": {
            "host": address.host,
            "port": address.port,
            "database": "postgres",
            "sslMode": "Disable",
            "credentialsSecretRef": {"name": "bench"},
        },
        "table": {"name": table},
        "columns": {"id": "id", "vector": "vector", "model": "model"},
        "model": data.MODEL,
        "tombstone": {"column": "deleted"},
    }
    spec = {"source": source, "index": {"dimension": data.DIMENSION, "metric": "Cosine"} | index}
    return {"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "metadata": {"name": "bench"}, "spec": spec}


def expect(held: bool, otherwise: str) -> None:
    """Raise AssertionError where what was measured is not what was meant: a figure of it would be worth nothing."""
    if not held:
        raise AssertionError(otherwise)


# --- drift


def with_index_of(belief: Belief, other: Belief) -> Belief:
    """Return the belief with the index of another one, which must hold the same rows."""
    return replace(belief, view=other.view)


def lose_rows(belief: Belief, ids: NDArray[np.int64]) -> Belief:
    """Return the belief without some rows, in ledger and index alike, the ledger under its old seals: a loss that nobody noticed."""
    buckets = tuple(_without(bucket, ids) for bucket in belief.ledger.buckets)
    no_codes = np.empty((0, belief.view.spec.dimension), np.float32)
    return replace(
        belief,
        ledger=replace(belief.ledger, buckets=buckets),
        view=belief.view.change(ids, np.empty(0, np.int64), no_codes),
    )


def _without(bucket: Bucket, ids: NDArray[np.int64]) -> Bucket:
    kept = ~np.isin(bucket.ids, ids)
    if kept.all():
        return bucket
    return Bucket(bucket.ids[kept], bucket.stamps[kept], bucket.digests[kept], bucket.codes[kept], bucket.quarantine[kept])


def damage_index(belief: Belief, ids: NDArray[np.int64], rng: np.random.Generator) -> Belief:
    """Return the belief with an index that lost every second of some rows and has other vectors for the rest; the ledger is as it was.

    As rows are gone, the numbers of ledger and index differ, and the next cycle compares the two whole.
    """
    changed = ids[1::2]
    noise = rng.standard_normal((changed.size, belief.view.spec.dimension), np.float32)
    return replace(belief, view=belief.view.change(ids, changed, encode(noise, belief.view.spec.metric)))


def check_against(belief: Belief, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
    """Raise AssertionError unless the index holds exactly these rows."""
    indexed, codes = belief.view.live_entries()
    order = np.argsort(indexed)
    expect(np.array_equal(indexed[order], ids), "the index holds other ids than were made")
    expect(
        np.array_equal(codes[order], code_digests(encode(vectors, belief.view.spec.metric))), "the index holds other vectors than were made"
    )
