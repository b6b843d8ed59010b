"""A running replica that holds a change: it serves on, says what it would do, and does it once somebody approved."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.wordnet.load import MODEL, live_rows
from tests.support.faults import change_view
from tests.support.postgres import MakeWordnetDatabase, WordnetDatabase
from tests.support.replica import make_manifest, running_replica, wait_until, write_settings
from vectorindex_indexer import cycle, replica
from vectorindex_indexer.config import Settings
from vectorindex_indexer.holds import ROWS_WINDOW_SECONDS, RowsHistory
from vectorindex_indexer.index import Answers, sealing
from vectorindex_indexer.names import ProofReason, Result, State
from vectorindex_indexer.replica import Replica
from vectorindex_indexer.slots import hold_slot

ROWS = 2000
CONSISTENCY = {"periodSeconds": 1, "maxSourceDutyPercent": 100}


@pytest.fixture
def database(make_wordnet_database: MakeWordnetDatabase) -> WordnetDatabase:
    return make_wordnet_database(rows=ROWS)


@pytest.fixture
def settings(database: WordnetDatabase, tmp_path: Path) -> Settings:
    files = write_settings(tmp_path, make_manifest(database, consistency=CONSISTENCY), database.create_reader())
    write_live(tmp_path / "live.json")
    return Settings(
        **{name: getattr(files, name) for name in ("config", "credentials", "tls", "data", "host")}, live=tmp_path / "live.json"
    )


def write_live(path: Path, *, approve: str = "", **fields: Any) -> None:
    """Write the live file as the operator does: all at once."""
    document = {"consistency": CONSISTENCY, "wishes": {"approvePlan": approve}, **fields}
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(document))
    beside.replace(path)


def live_ids(database: WordnetDatabase) -> list[int]:
    with database.admin_connect() as connection:
        ids, _ = live_rows(connection)
    return [int(key) for key in ids]


def delete(database: WordnetDatabase, ids: list[int]) -> None:
    with database.admin_connect() as connection:
        connection.execute("DELETE FROM embeddings WHERE entity_id = ANY(%s) AND model_name = %s", [ids, MODEL])


def answered(running: Replica) -> set[int]:
    view = running.view
    assert view is not None
    return set(view.live_entries()[0].tolist())


def metric(running: Replica, name: str, **labels: str) -> float:
    value = running.metrics.registry.get_sample_value(f"vectorindex_{name}", {"index": "docs", **labels})
    assert value is not None
    return value


def proof_of(running: Replica) -> dict[str, Any]:
    """Return what the operator would remember of a replica."""
    proof = running.status().proof
    return {"rows": proof.source_rows, "incarnation": proof.incarnation, "snapshot": proof.snapshot, "digestSpec": proof.digest_spec}


def test_a_large_deletion_waits_and_an_approval_counts_once(settings: Settings, database: WordnetDatabase) -> None:
    ids = live_ids(database)
    assert settings.live is not None
    with running_replica(settings) as running:
        wait_until("proven", lambda: running.proven)
        root = running.status().proof.root_digest
        delete(database, ids[:1000])
        wait_until("held", lambda: running.status().held_plan is not None)

        status = running.status()
        plan = status.held_plan
        assert plan is not None
        assert (plan.reason, plan.action, plan.removes) == (ProofReason.CHANGE_HELD, "patch", 1000)
        assert (status.state, status.ready, status.proven, status.pending) == (State.HELD, True, False, 1000)
        assert (status.proof.result, status.proof.reason) == (Result.DRIFT, ProofReason.CHANGE_HELD)
        assert status.proof.root_digest == root, "the root digest is that of what is served"
        assert answered(running) == set(ids)
        assert (metric(running, "repair_held"), metric(running, "pending_rows")) == (1, 1000)

        write_live(settings.live, approve=plan.id)
        wait_until("carried out", lambda: running.proven)
        assert answered(running) == set(ids[1000:])
        assert running.status().identity.approved_plans == [plan.id]
        assert (metric(running, "repair_held"), metric(running, "synchronised_rows_total", kind="deleted")) == (0, 1000)

        with database.admin_connect() as connection:  # the same rows come, and go again
            connection.execute(
                "INSERT INTO embeddings (entity_id, model_name, vector) SELECT unnest(%s::bigint[]), %s, vector FROM embeddings "
                "WHERE entity_id = %s AND model_name = %s",
                [ids[:1000], MODEL, ids[-1], MODEL],
            )
        wait_until("the rows to return", lambda: answered(running) == set(ids))
        delete(database, ids[:1000])
        wait_until("held again", lambda: running.status().held_plan is not None)
        again = running.status().held_plan
        assert again is not None
        assert again.id == plan.id, "the same plan"
        checks = metric(running, "checks_total", layer="L0", result="ok")
        wait_until("another check", lambda: metric(running, "checks_total", layer="L0", result="ok") > checks + 1)
        assert answered(running) == set(ids), "an approval counts once"


def test_a_restart_with_a_held_change_serves_and_holds_on(settings: Settings, database: WordnetDatabase) -> None:
    ids = live_ids(database)
    with running_replica(settings) as running:
        wait_until("proven", lambda: running.proven)
    delete(database, ids[:1000])

    with running_replica(settings) as running:
        wait_until("held", lambda: running.status().held_plan is not None)
        wait_until("served", running.is_ready)
        assert answered(running) == set(ids)


def test_a_rebuild_lets_no_held_change_in(settings: Settings, database: WordnetDatabase) -> None:
    ids = live_ids(database)
    assert settings.live is not None
    with running_replica(settings) as running:
        wait_until("proven", lambda: running.proven)
        delete(database, ids[:1000])
        write_live(settings.live, wishes={"rebuildRequestedAt": "2099-01-01T00:00:00Z"})
        wait_until("held", lambda: running.status().held_plan is not None)
        checks = metric(running, "checks_total", layer="L0", result="ok")
        wait_until("more checks", lambda: metric(running, "checks_total", layer="L0", result="ok") > checks + 2)
        assert answered(running) == set(ids)
        assert running.status().identity.rebuild_requested_at == ""


@pytest.mark.parametrize(
    ("other", "reason"),
    [({}, ProofReason.CHANGE_HELD), ({"incarnation": "1/primary/1"}, ProofReason.SOURCE_REGRESSED)],
)
def test_a_replica_without_memory_is_not_ready_with_fewer_rows_than_were_proven(
    settings: Settings, database: WordnetDatabase, other: dict[str, Any], reason: ProofReason
) -> None:
    assert settings.live is not None
    with running_replica(settings) as running:
        wait_until("proven", lambda: running.proven)
        proven = proof_of(running)
    for file in settings.data.iterdir():
        file.unlink()
    delete(database, live_ids(database)[: 1000 if reason is ProofReason.CHANGE_HELD else 1])
    write_live(settings.live, lastProven=proven | other)

    with running_replica(settings) as running:
        wait_until("held", lambda: running.status().held_plan is not None)
        status = running.status()
        plan = status.held_plan
        assert plan is not None
        assert (plan.reason, plan.action, status.state, status.ready) == (reason, "replace", State.HELD, False)
        assert running.view is None

        write_live(settings.live, lastProven=proven | other, approve=plan.id)
        wait_until("ready", running.is_ready)
        assert answered(running) == set(live_ids(database))
        assert running.status().identity.approved_plans == [plan.id]


def test_a_replica_without_memory_waits_for_a_server_that_lags(settings: Settings) -> None:
    assert settings.live is not None
    with running_replica(settings) as running:
        wait_until("proven", lambda: running.proven)
        proven = proof_of(running)
    for file in settings.data.iterdir():
        file.unlink()
    write_live(settings.live, lastProven=proven | {"snapshot": "999999999:999999999:"})

    with running_replica(settings) as running:
        wait_until("told", lambda: running.status().proof.reason == ProofReason.SNAPSHOT_WENT_BACK)
        assert not running.is_ready()
        write_live(settings.live, lastProven=proven)
        wait_until("ready", running.is_ready)


def test_mode_observe_is_told_and_leaves_drift_alone(settings: Settings) -> None:
    assert settings.live is not None
    write_live(settings.live, healing={"mode": "Observe"})
    with running_replica(settings) as running:
        wait_until("proven", lambda: running.proven)
        belief = running._belief
        assert belief is not None
        lost = int(belief.view.live_entries()[0][3])
        running._belief = change_view(belief, [lost], {})
        wait_until("told", lambda: running.status().proof.reason == ProofReason.REPAIR_HELD)
        status = running.status()
        assert (status.state, status.held_plan, status.drift.missing) == (State.HELD, None, 1)
        assert not status.repairs

        write_live(settings.live)
        wait_until("repaired", lambda: running.proven)
        assert running.status().drift.missing == 0
        (repair,) = running.status().repairs
        assert (repair.action, repair.result, repair.drift.missing, repair.sample_ids) == ("patch", "repaired", 1, [str(lost)])


def test_an_index_is_not_tidied_up_while_a_repair_waits(settings: Settings, database: WordnetDatabase) -> None:
    assert settings.live is not None
    free = {"maxChangePercent": 100, "cooldownSeconds": 1}
    write_live(settings.live, healing=free | {"mode": "Plan"})
    with running_replica(settings) as running:
        wait_until("proven", lambda: running.proven)
        belief = running._belief
        assert belief is not None
        lost = int(belief.view.live_entries()[0][3])
        running._belief = change_view(belief, [lost], {})
        wait_until("told", lambda: running.status().proof.reason == ProofReason.REPAIR_HELD)

        delete(database, [key for key in live_ids(database) if key != lost][:700])  # so many dead rows ask for a merge
        wait_until("followed", lambda: metric(running, "synchronised_rows_total", kind="deleted") == 700)
        seen = checks(running)
        wait_until("more checks", lambda: checks(running) > seen + 3)
        status = running.status()
        assert (status.proof.reason, status.drift.missing, status.repairs) == (ProofReason.REPAIR_HELD, 1, [])
        assert status.view is not None
        assert status.view.generation == 1

        write_live(settings.live, healing=free)
        wait_until("merged", lambda: (view := running.status().view) is not None and view.generation == 2 and running.proven)
        assert [repair.drift.missing for repair in running.status().repairs] == [1]
        assert answered(running) == set(live_ids(database))


def checks(running: Replica) -> float:
    return sum(metric(running, "checks_total", layer="L0", result=str(result)) for result in Result)


# --- what else the writer does beside checking


def test_a_grown_delta_is_sealed_in_the_background_and_stays_proven(
    settings: Settings, database: WordnetDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "FLOOR_ROWS", 50)
    with running_replica(settings) as running:
        wait_until("proven", lambda: running.proven)
        with database.admin_connect() as connection:
            connection.execute(
                "INSERT INTO embeddings (entity_id, model_name, vector) "
                "SELECT entity_id + 10^9::bigint, model_name, vector FROM embeddings WHERE model_name = %s ORDER BY entity_id LIMIT 300",
                [MODEL],
            )
            connection.execute(
                "INSERT INTO faiss_metadata (entity_id, model_name) SELECT entity_id, model_name FROM embeddings WHERE entity_id > 10^9"
            )

        def sealed() -> bool:
            view = running.status().view
            return view is not None and (view.segments, view.delta) == (2, 0)

        wait_until("sealed", sealed)
        checks = metric(running, "checks_total", layer="L1", result="ok")
        wait_until("proven again", lambda: metric(running, "checks_total", layer="L1", result="ok") > checks)
        assert running.proven
        assert answered(running) == set(live_ids(database))


def test_answers_are_sampled_and_a_dead_id_in_one_makes_the_next_check_look_at_everything(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "ANSWERS_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(cycle, "EXAMINE_ALWAYS_ROWS", 0)
    with running_replica(settings) as running:
        wait_until("sampled", lambda: running.status().proof.recall is not None)
        assert running.status().proof.recall == 1.0
        assert running.status().proof.layers.L2 == Result.OK
        assert metric(running, "recall_ratio") == 1.0

        with monkeypatch.context() as context:
            context.setattr(replica, "examine_answers", lambda *_, **__: Answers(0.5, np.array([-7]), np.array([-7])))
            wait_until("told", lambda: running.status().proof.layers.L2 == Result.DRIFT)
        assert metric(running, "checks_total", layer="L2", result="drift") >= 1
        wait_until("looked at everything", lambda: running.status().proof.layers.L2 == Result.OK)


def test_a_load_waits_for_a_free_slot_and_tells_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "SLOT_SECONDS", 0.3)
    first = Replica(settings)
    with hold_slot(first._connector, 1, wait_seconds=5.0, hold_seconds=60.0), running_replica(settings) as running:
        wait_until("told", lambda: running.status().proof.reason == ProofReason.REBUILD_SLOT_BUSY)
        assert not running.is_ready()
    with running_replica(settings) as running:
        wait_until("ready", running.is_ready)


def test_what_was_proven_is_saved_even_if_the_last_check_could_not_see(settings: Settings, database: WordnetDatabase) -> None:
    with running_replica(settings) as running:
        wait_until("proven", lambda: running.proven)
        wait_until("saved", (settings.data / "manifest.json").exists)
        before = (settings.data / "manifest.json").read_bytes()
        delete(database, live_ids(database)[:5])
        wait_until("followed", lambda: metric(running, "synchronised_rows_total", kind="deleted") == 5)
        with database.admin_connect() as connection:
            connection.execute("ALTER TABLE embeddings RENAME TO elsewhere")
        wait_until("unknown", lambda: running.status().proof.result == Result.UNKNOWN)
    assert (settings.data / "manifest.json").read_bytes() != before


def test_checks_keep_to_their_share_of_time_on_postgres(settings: Settings) -> None:
    assert settings.live is not None
    write_live(settings.live, consistency=CONSISTENCY | {"maxSourceDutyPercent": 5})
    with running_replica(settings) as running:
        wait_until("an ordinary check", lambda: running.status().proof.attainable_period_seconds > 0)
        attainable, started = running.status().proof.attainable_period_seconds, time.monotonic()
        checks = metric(running, "checks_total", layer="L0", result="ok")
        wait_until("another check", lambda: metric(running, "checks_total", layer="L0", result="ok") > checks, seconds=120)
        assert time.monotonic() - started > attainable / 2, "the check before has to be paid for"
        assert metric(running, "source_busy_seconds_total") > attainable * 0.05


def test_the_most_rows_of_a_day_are_remembered() -> None:
    history = RowsHistory()
    for now, rows in ((0.0, 100), (10.0, 300), (20.0, 200), (30.0, 250)):
        history.add(now, rows)
    assert history.most(30.0) == 300
    assert history.most(10.0 + ROWS_WINDOW_SECONDS + 1) == 250
    assert history.most(31.0 + ROWS_WINDOW_SECONDS) == 0
    history.add(40.0, 5)
    history.forget()
    assert history.most(40.0) == 0
