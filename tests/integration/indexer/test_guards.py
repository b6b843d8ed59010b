"""What is held against a real Postgres: nothing large, and nothing from a server that lost rows, changes the index without approval."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.wordnet.load import MODEL, Variant, live_rows
from tests.support.faults import change_view
from tests.support.postgres import MakeWordnetDatabase, WordnetDatabase
from tests.support.replica import (
    assert_true_to,
    check,
    drifted,
    load_belief,
    make_manifest,
    make_source,
    make_terms,
    write_settings,
)
from vectorindex_indexer import ledger
from vectorindex_indexer.belief import Belief, Outcome, Pace, StoppedError
from vectorindex_indexer.config import HealingMode
from vectorindex_indexer.cycle import run_cycle
from vectorindex_indexer.guards import Limits
from vectorindex_indexer.names import ProofReason, Result
from vectorindex_indexer.rows import AsOf
from vectorindex_indexer.source import Source

ROWS = 10_000  # 9,500 live, five buckets of the size that they have here
BUCKET_ROWS = 2048
CAREFUL = {"limits": Limits(0.2, 9_500)}


@dataclass
class Bench:
    """A database, a source that reads it, and a belief."""

    database: WordnetDatabase
    source: Source
    belief: Belief

    def check(self, **terms: Any) -> Outcome:
        outcome = check(self.source, self.belief, **terms)
        self.belief = outcome.belief
        return outcome

    def execute(self, statement: str, *values: Any) -> None:
        with self.database.admin_connect() as connection:
            connection.execute(statement, values)

    def live(self) -> list[int]:
        with self.database.admin_connect() as connection:
            ids, _ = live_rows(connection, variant=self.database.variant)
        return ids.tolist()  # type: ignore[no-any-return]

    def served(self) -> set[int]:
        return set(self.belief.view.live_entries()[0].tolist())

    def delete(self, ids: list[int]) -> None:
        self.execute("DELETE FROM embeddings WHERE entity_id = ANY(%s) AND model_name = %s", ids, MODEL)

    def approve(self) -> frozenset[str]:
        assert self.belief.plan is not None
        return frozenset({self.belief.plan.id})


@pytest.fixture
def bench(make_wordnet_database: MakeWordnetDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(ledger, "BUCKET_ROWS", BUCKET_ROWS)
    database = make_wordnet_database(rows=ROWS, variant=Variant.TWO_TABLES)
    settings = write_settings(tmp_path, make_manifest(database), database.create_reader())
    source = make_source(settings)
    yield Bench(database, source, load_belief(settings, source))
    assert not database.idle_in_transaction()


# --- large changes


def test_a_large_deletion_is_held_served_on_and_made_once_approved(bench: Bench) -> None:
    ids = bench.live()
    before = bench.belief
    bench.delete(ids[:3000])

    held = bench.check(**CAREFUL)

    assert (held.findings.result, held.findings.reason) == (Result.DRIFT, ProofReason.CHANGE_HELD)
    plan = held.belief.plan
    assert plan is not None
    assert (plan.removes, plan.replaces, plan.adds, held.findings.pending) == (3000, 0, 0, 3000)
    assert plan.sample_ids == tuple(str(key) for key in ids[:10])
    assert plan.id in held.findings.message
    assert bench.served() == set(ids), "the former index serves on"
    assert (held.belief.root, held.belief.as_of) == (before.root, before.as_of)
    assert held.belief.ledger.rows == len(ids) - 3000, "the ledger follows"

    again = bench.check(**CAREFUL)
    assert again.belief.plan is not None
    assert (again.findings.reason, again.belief.plan.id) == (ProofReason.CHANGE_HELD, plan.id)

    done = bench.check(**CAREFUL, approved=frozenset({plan.id}))
    assert (done.findings.result, done.findings.carried_out, done.findings.followed.deleted) == (Result.OK, plan.id, 3000)
    assert done.belief.plan is None
    assert_true_to(bench.belief, bench.database)


def test_little_by_little_is_as_much_as_at_once(bench: Bench) -> None:
    ids = bench.live()
    for start in range(0, 1800, 600):
        bench.delete(ids[start : start + 600])
        assert bench.check(**CAREFUL).findings.result is Result.OK

    bench.delete(ids[1800:2400])

    assert bench.check(**CAREFUL).findings.reason is ProofReason.CHANGE_HELD
    assert bench.served() == set(ids[1800:])


def test_replacing_much_is_held_and_adding_much_is_not(bench: Bench) -> None:
    bench.execute(
        "INSERT INTO embeddings (entity_id, model_name, vector) SELECT entity_id + 10^9::bigint, model_name, vector FROM embeddings"
    )
    bench.execute(
        "INSERT INTO faiss_metadata (entity_id, model_name) "
        "SELECT entity_id + 10^9::bigint, model_name FROM faiss_metadata WHERE NOT deleted"
    )
    added = bench.check(**CAREFUL)
    assert added.findings.result is Result.OK, added.findings.message
    assert added.findings.followed.inserted > 9000

    bench.execute(
        "UPDATE embeddings a SET vector = b.vector FROM embeddings b WHERE b.entity_id = %s AND b.model_name = a.model_name",
        bench.live()[0],
    )

    held = bench.check(**CAREFUL)
    assert held.findings.reason is ProofReason.CHANGE_HELD
    assert held.belief.plan is not None
    assert held.belief.plan.replaces > 9000


def test_a_change_that_was_taken_back_upstream_needs_no_approval(bench: Bench) -> None:
    ids = bench.live()
    bench.execute("UPDATE embeddings SET model_name = 'away' WHERE entity_id = ANY(%s) AND model_name = %s", ids[:3000], MODEL)
    assert bench.check(**CAREFUL).findings.reason is ProofReason.CHANGE_HELD

    bench.execute("UPDATE embeddings SET model_name = %s WHERE model_name = 'away'", MODEL)

    back = bench.check(**CAREFUL)
    assert (back.findings.result, back.findings.pending) == (Result.OK, 0)
    assert (back.belief.plan, back.belief.pending.ids.size) == (None, 0)
    assert_true_to(bench.belief, bench.database)


def test_an_approval_covers_growth_up_to_the_limit_and_no_more(bench: Bench) -> None:
    ids = bench.live()
    bench.delete(ids[:2500])
    bench.check(**CAREFUL)
    approved = bench.approve()

    bench.delete(ids[2500:7000])

    much_more = bench.check(**CAREFUL, approved=approved)
    assert much_more.findings.reason is ProofReason.CHANGE_HELD
    assert much_more.belief.plan is not None
    assert much_more.belief.plan.id not in approved
    assert bench.served() == set(ids)

    approved = bench.approve()
    bench.delete(ids[7000:8000])
    assert bench.check(**CAREFUL, approved=approved).findings.result is Result.OK
    assert bench.served() == set(ids[8000:])


def test_damage_to_a_row_that_waits_is_still_seen(bench: Bench) -> None:
    ids = bench.live()
    bench.delete(ids[:3000])
    bench.check(**CAREFUL)
    bench.belief = change_view(bench.belief, [ids[5], ids[6]], {ids[6]: np.ones(384, np.float32)})

    damaged = bench.check(**CAREFUL, whole=True)

    assert damaged.findings.result is Result.DRIFT
    assert set(drifted(damaged.findings)) <= {"changed", "ghost", "missing"}
    assert set(damaged.findings.drift.ids.tolist()) >= {ids[5], ids[6]}


# --- servers that lost rows


def move_to_other_life(belief: Belief) -> Belief:
    """Return the belief as if it came from another server, whose counters were further on."""
    return replace(belief, as_of=replace(belief.as_of, incarnation="1/primary/1", snapshot="999999999:999999999:"))


def test_another_server_that_lacks_one_row_is_held(bench: Bench) -> None:
    ids = bench.live()
    bench.belief = move_to_other_life(bench.belief)
    bench.delete(ids[:1])

    held = bench.check()

    assert (held.findings.result, held.findings.reason) == (Result.DRIFT, ProofReason.SOURCE_REGRESSED)
    assert ids[0] in bench.served()
    assert bench.check().findings.reason is ProofReason.SOURCE_REGRESSED, "it stays held"
    assert bench.check(approved=bench.approve()).findings.result is Result.OK
    assert_true_to(bench.belief, bench.database)


def test_another_server_with_all_rows_is_compared_by_content_and_followed(bench: Bench) -> None:
    bench.belief = move_to_other_life(bench.belief)
    times = bench.belief.ledger.compared.copy()

    outcome = bench.check(now=1e9)

    assert outcome.findings.result is Result.OK
    assert (outcome.belief.ledger.compared == 1e9).all(), times
    assert not outcome.belief.ledger.void.any()


# --- healing.mode


def plant(bench: Bench) -> int:
    """Let the index lose a row."""
    key = bench.live()[7]
    bench.belief = change_view(bench.belief, [key], {})
    return key


def test_mode_observe_reports_drift_and_follows_the_source(bench: Bench) -> None:
    key = plant(bench)
    bench.delete(bench.live()[:1])
    for _ in range(2):
        outcome = bench.check(mode=HealingMode.OBSERVE, approved=frozenset({"0" * 16}))
        assert (outcome.findings.result, outcome.findings.reason) == (Result.DRIFT, ProofReason.REPAIR_HELD)
        assert drifted(outcome.findings) == {"missing": [key]}
        assert outcome.belief.plan is None
    assert bench.served() == set(bench.live()) - {key}
    assert bench.check().findings.result is Result.OK
    assert_true_to(bench.belief, bench.database)


def test_mode_plan_says_what_it_would_do_and_does_it_once_approved(bench: Bench) -> None:
    key = plant(bench)
    held = bench.check(mode=HealingMode.PLAN)
    assert held.findings.reason is ProofReason.REPAIR_HELD
    assert held.belief.plan is not None
    assert (held.belief.plan.adds, held.belief.plan.sample_ids) == (1, (str(key),))
    bench.delete(bench.live()[:1])
    assert bench.check(mode=HealingMode.PLAN).findings.followed.deleted == 1, "it follows the source meanwhile"

    done = bench.check(mode=HealingMode.PLAN, approved=bench.approve())

    assert (done.findings.result, bool(done.findings.carried_out)) == (Result.OK, True)
    assert done.findings.drift.missing.tolist() == [key], "what was repaired is told, though an earlier check found it"
    assert bench.check(mode=HealingMode.PLAN).findings.drift.rows == 0
    assert_true_to(bench.belief, bench.database)


def test_so_much_damage_that_patching_makes_no_sense_asks_for_a_rebuild(bench: Bench) -> None:
    ids = bench.live()
    bench.belief = change_view(bench.belief, ids[:4000], {})

    outcome = bench.check(whole=True)

    assert (outcome.findings.result, outcome.findings.reason, outcome.findings.rebuild) == (Result.DRIFT, ProofReason.DRIFT_FOUND, True)
    assert outcome.findings.drift.missing.size == 4000


# --- groups of buckets


SLOW = {"snapshot_seconds": 0.0, "group_seconds": 0.0}  # one bucket in a transaction


def test_a_long_check_is_made_in_groups_and_ends_like_a_short_one(bench: Bench) -> None:
    ids = bench.live()
    bench.delete([ids[0], ids[5000], ids[-1]])
    bench.belief = change_view(bench.belief, [ids[4500]], {})
    busy: list[float] = []
    published: list[Belief] = []

    outcome = run_cycle(
        bench.source, bench.belief, make_terms(**SLOW, whole=True), lambda _: None, publish=published.append, rest=busy.append
    )

    assert outcome.findings.result is Result.OK, outcome.findings.message
    assert len(busy) == len(published) == len(bench.belief.ledger.buckets) - 1 == 4
    assert outcome.findings.followed.deleted == 3
    assert outcome.findings.source_rows == len(ids) - 3
    assert drifted(outcome.findings) == {"missing": [ids[4500]]}
    assert outcome.belief.root is None, "no snapshot covered all"
    assert outcome.findings.source_seconds > 0
    assert [one.as_of for one in published] == [bench.belief.as_of] * len(published), "what is served is as old as its oldest bucket"
    assert outcome.belief.as_of.snapshot <= outcome.belief.last_read.snapshot
    bench.belief = outcome.belief
    assert_true_to(bench.belief, bench.database)
    assert bench.check().belief.root == bench.belief.ledger.root


def test_a_long_check_that_was_cut_short_goes_on_where_it_stopped(bench: Bench) -> None:
    ids = bench.live()
    bench.delete([ids[0], ids[-1]])
    so_far: list[Belief] = []

    def stop(_: float) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        run_cycle(bench.source, bench.belief, make_terms(**SLOW), lambda _: None, publish=so_far.append, rest=stop)
    assert so_far[-1].cursor is not None
    bench.belief = so_far[-1]
    assert set(ids) - bench.served() == {ids[0]}

    rest: list[float] = []
    outcome = run_cycle(bench.source, bench.belief, make_terms(**SLOW), lambda _: None, rest=rest.append)

    assert (outcome.findings.result, outcome.belief.cursor) == (Result.OK, None)
    assert len(rest) == len(bench.belief.ledger.buckets) - 2
    bench.belief = outcome.belief
    assert_true_to(bench.belief, bench.database)


def test_a_long_check_shows_the_moment_of_its_first_group(bench: Bench) -> None:
    """A row that dies behind the check's back is still shown: an as-of point after its death would be a lie."""
    first = bench.live()[0]
    moments: list[AsOf] = []

    def publish(belief: Belief) -> None:
        if not moments:
            bench.delete([first])
        moments.append(belief.last_read)

    before = bench.belief.as_of
    bench.belief = run_cycle(bench.source, bench.belief, make_terms(**SLOW), lambda _: None, publish=publish).belief

    assert first in bench.served()
    assert bench.belief.as_of == moments[0]
    assert before.at < bench.belief.as_of.at < moments[-1].at < bench.belief.last_read.at
    assert bench.check(**SLOW).findings.followed.deleted == 1


def test_a_deletion_spread_over_all_groups_is_held_as_one(bench: Bench) -> None:
    ids = bench.live()
    bench.delete(ids[::3])

    held = bench.check(**SLOW, **CAREFUL)

    assert held.findings.reason is ProofReason.CHANGE_HELD
    assert held.belief.plan is not None
    waiting = held.belief.pending.upstream.size
    assert len(bench.served()) >= len(ids) * 0.8, "what went before it was too much is within the limit"
    assert len(bench.served()) - waiting == len(ids) - len(ids[::3])

    done = bench.check(**SLOW, **CAREFUL, approved=bench.approve())

    assert (done.findings.result, done.belief.plan) == (Result.OK, None)
    assert done.findings.carried_out == held.belief.plan.id
    assert_true_to(bench.belief, bench.database)


def test_a_renamed_model_key_is_unknown_in_groups_too(bench: Bench) -> None:
    bench.execute("UPDATE embeddings SET model_name = 'renamed' WHERE model_name = %s", MODEL)
    outcome = bench.check(**SLOW)
    assert (outcome.findings.result, outcome.findings.reason) == (Result.UNKNOWN, ProofReason.MODEL_KEY_NOT_FOUND)


@pytest.mark.parametrize("pace", [Pace(look=0.001, content=0.01), Pace(look=10.0, content=10.0)])
def test_what_fits_in_a_few_seconds_is_one_snapshot(bench: Bench, pace: Pace) -> None:
    bench.belief = replace(bench.belief, pace=pace)
    rests: list[float] = []
    outcome = run_cycle(bench.source, bench.belief, make_terms(), lambda _: None, rest=rests.append)
    assert (outcome.belief.root is not None) is (pace.look < 1)
    assert bool(rests) is (pace.look > 1)
