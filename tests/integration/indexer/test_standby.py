"""A replica on a real hot standby: nothing committed is lost, conflicts are borne, and a promotion is never taken for the same server."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.wordnet.load import MODEL, live_rows
from tests.support.gate import Gate, gate
from tests.support.postgres import EmbeddedPostgres, Server, WordnetDatabase, create_wordnet_database
from tests.support.replica import (
    assert_true_to,
    check,
    drifted,
    load_belief,
    make_manifest,
    make_source,
    running_replica,
    wait_until,
    write_settings,
)
from tests.support.standby import Standby, standby
from tests.support.writers import run_writers
from vectorindex_indexer.config import Settings
from vectorindex_indexer.names import ProofReason, Result, SourceReason, State
from vectorindex_indexer.replica import Replica
from vectorindex_indexer.slots import hold_slot
from vectorindex_indexer.source import Unit

ROWS = 1000
WRITERS = 8
CONFLICTS = (SourceReason.STATEMENT_CANCELLED, SourceReason.CONNECTION_LOST)
CHECKS = 40  # conclusive ones


@pytest.fixture
def primary() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as server:
        yield server


@pytest.fixture
def database(primary: EmbeddedPostgres) -> WordnetDatabase:
    return create_wordnet_database(Server(primary.address), ROWS)


@pytest.fixture
def copy(primary: EmbeddedPostgres, database: WordnetDatabase) -> Iterator[Standby]:
    """A standby that soon ends what stands in the way of replay."""
    with standby(primary, {"max_standby_streaming_delay": "1s"}) as server:
        yield server


def settings_on(address_of: WordnetDatabase, database: WordnetDatabase, folder: Path, port: int | None = None) -> Settings:
    manifest = make_manifest(address_of, source__postgres__port=port or address_of.address.port)
    return write_settings(folder, manifest, database.create_reader())


def execute(database: WordnetDatabase, statement: str, *values: object) -> None:
    with database.admin_connect() as connection:
        connection.execute(statement, values)


def live_ids(database: WordnetDatabase) -> list[int]:
    with database.admin_connect() as connection:
        return [int(key) for key in live_rows(connection)[0]]


def answered_ids(replica: Replica) -> list[int]:
    view = replica.view
    assert view is not None, "nothing is served"
    return sorted(view.live_entries()[0].tolist())


def test_no_committed_row_is_lost_and_nothing_is_taken_for_drift_while_writers_write(
    database: WordnetDatabase, copy: Standby, tmp_path: Path
) -> None:
    seen = copy.see(database)
    settings = settings_on(seen, database, tmp_path)
    copy.catch_up()
    source = make_source(settings)
    belief = load_belief(settings, source)
    assert belief.as_of.in_recovery
    conclusive, deadline = 0, time.monotonic() + 180
    with run_writers(database, WRITERS):
        while conclusive < CHECKS:
            assert time.monotonic() < deadline, f"only {conclusive} conclusive checks"
            outcome = check(source, belief)
            belief = outcome.belief
            assert not drifted(outcome.findings), outcome.findings.message
            if outcome.findings.result is Result.OK:
                conclusive += 1
            else:  # a snapshot that stood in the way of replay
                assert outcome.findings.reason in CONFLICTS, outcome.findings.message
    copy.catch_up()
    outcome = check(source, belief, whole=True)

    assert (outcome.findings.result, drifted(outcome.findings)) == (Result.OK, {})
    assert_true_to(outcome.belief, database)
    assert not seen.idle_in_transaction()


def test_a_query_cancelled_by_replay_is_unknown_with_its_reason_and_tried_again(
    database: WordnetDatabase, copy: Standby, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = copy.see(database)
    settings = settings_on(seen, database, tmp_path)
    copy.catch_up()
    source = make_source(settings)
    belief = load_belief(settings, source)
    survey, conflicts = Unit.survey, list[int]()

    def conflict(unit: Unit, *arguments: int) -> object:
        """Remove, on the primary, rows that this snapshot can still see."""
        if not conflicts:
            conflicts.append(1)
            execute(database, "DELETE FROM embeddings WHERE entity_id IN (SELECT entity_id FROM embeddings ORDER BY 1 LIMIT 50)")
            execute(database, "VACUUM embeddings")
            copy.catch_up()
        return survey(unit, *arguments)

    monkeypatch.setattr(Unit, "survey", conflict)
    first = check(source, belief)
    second = check(source, first.belief)

    assert conflicts
    assert first.findings.result is Result.UNKNOWN
    assert first.findings.reason in CONFLICTS
    assert first.findings.source_error is not None
    assert first.findings.source_error.retryable
    assert first.belief.ledger is belief.ledger
    assert second.findings.result is Result.OK
    assert second.findings.followed.deleted > 0
    assert_true_to(second.belief, database)
    assert not seen.idle_in_transaction()


def test_a_lagging_standby_is_followed_when_it_goes_on(database: WordnetDatabase, copy: Standby, tmp_path: Path) -> None:
    seen = copy.see(database)
    copy_settings = settings_on(seen, database, tmp_path)
    copy.catch_up()
    with running_replica(copy_settings) as replica:
        wait_until("ready", replica.is_ready)
        copy.pause_replay()
        gone = live_ids(database)[:10]
        execute(database, "UPDATE faiss_metadata SET deleted = true WHERE entity_id = ANY(%s)", gone)
        checked = replica.status().proof.checked_at
        wait_until("a check", lambda: replica.status().proof.checked_at > checked)
        assert replica.status().proof.result == Result.OK, "equal to what this server shows"
        assert set(gone) <= set(answered_ids(replica))

        copy.resume_replay()

        wait_until("followed", lambda: answered_ids(replica) == live_ids(database))
        assert not seen.idle_in_transaction()


def test_slots_work_on_a_standby(database: WordnetDatabase, copy: Standby, tmp_path: Path) -> None:
    settings = settings_on(copy.see(database), database, tmp_path)
    copy.catch_up()
    connector = make_source(settings)._connector

    with hold_slot(connector, 1, wait_seconds=0, hold_seconds=60, beat_seconds=0.1):
        time.sleep(0.5)  # several beats, which must do no harm
        assert len(copy.see(database).idle_in_transaction()) <= 1


# --- promotion


@pytest.fixture
def door(primary: EmbeddedPostgres) -> Iterator[Gate]:
    """What the replica connects to: first the primary, after a failover the standby."""
    with gate(primary.address.host, primary.address.port) as made:
        yield made


def test_a_promotion_that_loses_nothing_is_proven_by_content_as_another_server(
    primary: EmbeddedPostgres, database: WordnetDatabase, copy: Standby, door: Gate, tmp_path: Path
) -> None:
    with running_replica(settings_on(database, database, tmp_path, door.port)) as replica:
        wait_until("ready", replica.is_ready)
        before = replica.status().proof
        copy.catch_up()
        primary.stop()
        copy.promote()
        door.redirect(copy.address.host, copy.address.port)

        wait_until("proven", lambda: replica.status().proof.incarnation != before.incarnation)

        after = replica.status().proof
        assert (after.result, after.root_digest) == (Result.OK, before.root_digest)
        execute(copy.see(database), "DELETE FROM embeddings WHERE entity_id = ANY(%s)", answered_ids(replica)[:5])
        wait_until("followed", lambda: answered_ids(replica) == live_ids(copy.see(database)))
        assert not copy.see(database).idle_in_transaction()


def test_a_promotion_that_lost_commits_is_held_and_never_called_proven(
    primary: EmbeddedPostgres, database: WordnetDatabase, copy: Standby, door: Gate, tmp_path: Path
) -> None:
    """The standby never got the last rows; one of its own then takes the place, the transaction number and the snapshot of a lost one."""
    with running_replica(settings_on(database, database, tmp_path, door.port)) as replica:
        wait_until("ready", replica.is_ready)
        copy.catch_up()
        copy.stop_receiving()
        lost = [900_000_001, 900_000_002, 900_000_003]
        insert_rows(database, lost)
        wait_until("followed", lambda: set(lost) <= set(answered_ids(replica)))
        wait_until("proven", lambda: replica.status().proof.result == Result.OK)
        served, proven = answered_ids(replica), replica.status().proof
        primary.stop()
        copy.promote()
        promoted = copy.see(database)
        insert_rows(promoted, [900_000_009])

        door.redirect(copy.address.host, copy.address.port)

        def held() -> bool:
            status = replica.status()
            assert status.proof.result != Result.OK or status.proof.incarnation == proven.incarnation, "proven before it was compared"
            return status.state == State.HELD

        wait_until("held", held)
        for _ in range(3):
            checked = replica.status().proof.checked_at
            wait_until("another check", lambda checked=checked: replica.status().proof.checked_at > checked)  # type: ignore[misc]
            status = replica.status()
            assert status.proof.result != Result.OK
            assert status.proof.reason == ProofReason.SOURCE_REGRESSED
            assert status.proof.incarnation == proven.incarnation, "what is served is what the former server had"
            assert answered_ids(replica) == served
        assert status.held_plan is not None
        assert status.held_plan.removes == len(lost)
        assert not promoted.idle_in_transaction()


def insert_rows(database: WordnetDatabase, keys: list[int]) -> None:
    with database.admin_connect() as connection:
        connection.execute(
            "INSERT INTO embeddings (entity_id, model_name, vector) SELECT key, model_name, vector FROM unnest(%s::bigint[]) AS key, "
            "(SELECT model_name, vector FROM embeddings WHERE model_name = %s LIMIT 1) AS one",
            [keys, MODEL],
        )
        connection.execute(
            "INSERT INTO faiss_metadata (entity_id, model_name, deleted) SELECT key, %s, false FROM unnest(%s::bigint[]) AS key",
            [MODEL, keys],
        )
