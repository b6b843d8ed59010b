"""The life of a replica on a real Postgres: it proves, serves, follows, repairs, saves, and never serves what it can't stand for."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from examples.wordnet.load import MODEL, live_rows
from tests.support.damage import Damage, damage_both, damage_index_only, flip_bytes
from tests.support.faults import change_view
from tests.support.postgres import Login, MakeWordnetDatabase, WordnetDatabase
from tests.support.replica import make_manifest, running_replica, wait_until, write_settings
from vectorindex_indexer import cycle, report
from vectorindex_indexer.belief import Belief
from vectorindex_indexer.config import Settings
from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.load import load_candidate
from vectorindex_indexer.names import ProofReason, Result, SourceReason, State
from vectorindex_indexer.replica import Replica, check_once, pause_after

ROWS = 2000


@pytest.fixture
def database(make_wordnet_database: MakeWordnetDatabase) -> WordnetDatabase:
    return make_wordnet_database(rows=ROWS)


@pytest.fixture
def settings(database: WordnetDatabase, tmp_path: Path) -> Settings:
    return write_settings(tmp_path, make_manifest(database), database.create_reader())


def rewrite(settings: Settings, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit the manifest as a person with an editor would."""
    manifest = yaml.safe_load(settings.config.read_text())
    change(manifest)
    settings.config.write_text(yaml.safe_dump(manifest))


def execute(database: WordnetDatabase, statement: str, *values: object) -> None:
    with database.admin_connect() as connection:
        connection.execute(statement, values)


def answered_ids(replica: Replica) -> list[int]:
    view = replica.view
    assert view is not None
    return sorted(view.live_entries()[0].tolist())


def live_ids(database: WordnetDatabase) -> list[int]:
    with database.admin_connect() as connection:
        ids, _ = live_rows(connection)
    return [int(key) for key in ids]


def dead_ids(database: WordnetDatabase) -> list[int]:
    with database.admin_connect() as connection:
        rows = connection.execute("SELECT DISTINCT entity_id FROM faiss_metadata WHERE deleted AND model_name = %s ORDER BY 1", [MODEL])
        return [row[0] for row in rows.fetchall()]


def metric(replica: Replica, name: str, **labels: str) -> float:
    value = replica.metrics.registry.get_sample_value(f"vectorindex_{name}", {"index": "docs", **labels})
    assert value is not None, f"no such series: {name} {labels}"
    return value


# --- start, follow, wishes


def test_a_new_replica_serves_only_once_it_is_proven(settings: Settings, database: WordnetDatabase) -> None:
    replica = Replica(settings)
    assert not replica.is_ready()
    assert replica.view is None

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        status = replica.status()

    assert status.proof.result == Result.OK
    assert status.proof.root_digest.startswith(f"{database.counts.live}:")
    assert status.view is not None
    assert (status.view.rows, status.view.generation) == (database.counts.live, 1)
    assert status.proof.source_rows == status.proof.ledger_rows == database.counts.live
    assert answered_ids(replica) == live_ids(database)


def test_upstream_changes_arrive_within_a_period_and_count_as_synchronised(settings: Settings, database: WordnetDatabase) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        gone = live_ids(database)[:5]
        execute(database, "UPDATE faiss_metadata SET deleted = true WHERE entity_id = ANY(%s) AND model_name = %s", gone, MODEL)
        wait_until("tombstoned rows to go", lambda: not set(gone) & set(answered_ids(replica)), seconds=5)

        wait_until("the count", lambda: metric(replica, "synchronised_rows_total", kind="deleted") == 5)
        assert all(metric(replica, "repaired_rows_total", kind=kind) == 0 for kind in ("missing", "ghost", "changed", "duplicate"))
        assert metric(replica, "checks_total", layer="L0", result="drift") == 0
        assert replica.proven


def test_wishes_are_answered_once_and_echoed(settings: Settings) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        wish = {
            "vectorindex.dev/validate-requested-at": "2026-01-02T03:04:05Z",
            "vectorindex.dev/rebuild-requested-at": "2026-01-02T03:04:06Z",
        }
        generation = replica.status().view.generation  # type: ignore[union-attr]
        rewrite(settings, lambda manifest: manifest["metadata"].update(annotations=wish))

        wait_until(
            "both echoes",
            lambda: all(
                [
                    replica.status().identity.validate_requested_at == wish["vectorindex.dev/validate-requested-at"],
                    replica.status().identity.rebuild_requested_at == wish["vectorindex.dev/rebuild-requested-at"],
                ]
            ),
        )

        status = replica.status()
        # The wish is older than the index: the build that made it answers the wish.
        assert status.view is not None
        assert status.view.generation == generation


def test_a_rebuild_wished_for_now_gives_a_new_generation_and_serves_throughout(
    settings: Settings, database: WordnetDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[report.Progress] = []

    def load_watched(*arguments: Any, progress: Callable[[int, int], None], **options: Any) -> Belief:
        def watched(done: int, expected: int) -> None:
            progress(done, expected)
            told.append(replica.status().progress)

        return load_candidate(*arguments, progress=watched, **options)

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        nothing = replica.status().progress
        monkeypatch.setattr("vectorindex_indexer.replica.load_candidate", load_watched)
        rewrite(settings, lambda m: m["metadata"].update(annotations={"vectorindex.dev/rebuild-requested-at": "2126-01-02T03:04:06Z"}))

        def rebuilt() -> bool:
            assert replica.is_ready()
            assert replica.view is not None
            return replica.view.generation == 2

        wait_until("the new generation", rebuilt)
        wait_until("the echo", lambda: replica.status().identity.rebuild_requested_at == "2126-01-02T03:04:06Z")
        assert answered_ids(replica) == live_ids(database)
        assert metric(replica, "repairs_total", action="rebuild", trigger="wish", result="repaired") == 1
        live = len(live_ids(database))
        assert (told[0], told[-1]) == (report.Progress(0, live, 2), report.Progress(live, live, 2))
        assert (nothing, replica.status().progress) == (report.Progress(0, 0, 0), report.Progress(0, 0, 0))


def test_a_rebuild_counts_from_before_its_first_look_at_the_source(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would answer a wish that came after it had read the rows."""
    replica = Replica(settings)
    looked: list[datetime] = []

    def submit(*_: object) -> Future[Belief]:
        looked.append(datetime.now(UTC))
        return Future()

    monkeypatch.setattr(replica._background, "submit", submit)

    replica._plan_rebuild()

    assert replica._rebuild is not None
    assert replica._rebuild.started_at <= looked[0]


def test_suspended_it_observes_tells_and_changes_nothing_until_resumed(settings: Settings, database: WordnetDatabase) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        rewrite(settings, lambda manifest: manifest["spec"].update(suspend=True))
        wait_until("suspended", lambda: replica.status().suspended)
        before = answered_ids(replica)
        execute(database, "DELETE FROM embeddings WHERE entity_id = ANY(%s)", before[:3])
        wait_until("pending changes", lambda: replica.status().pending == 3)
        assert answered_ids(replica) == before
        assert replica.status().proof.reason == ProofReason.PENDING_SUSPENDED
        assert replica.is_ready()
        assert not replica.proven

        rewrite(settings, lambda manifest: manifest["spec"].update(suspend=False))
        wait_until("caught up", lambda: answered_ids(replica) == before[3:])
        wait_until("proven", lambda: replica.proven)


def test_metrics_tell_how_often_checks_should_be_and_how_old_a_proof_may_become(settings: Settings) -> None:
    with running_replica(settings) as replica:
        for period, staleness in ((2, 33), (5, 44)):
            rewrite(settings, lambda manifest: manifest["spec"]["consistency"].update(periodSeconds=period, maxStalenessSeconds=staleness))  # noqa: B023  called at once
            wait_until("read", lambda: metric(replica, "max_staleness_seconds") == staleness)  # noqa: B023  called at once
            assert metric(replica, "check_period_seconds") == period


def test_an_approval_counts_once_until_it_is_taken_back_and_given_again(settings: Settings, database: WordnetDatabase) -> None:
    def bury(dead: bool) -> None:
        execute(database, "UPDATE faiss_metadata SET deleted = %s WHERE entity_id = ANY(%s) AND model_name = %s", dead, many, MODEL)

    def approve(plans: str) -> None:
        rewrite(settings, lambda manifest: manifest["metadata"].update(annotations={"vectorindex.dev/approve-plan": plans}))

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        everything = live_ids(database)
        many, few = everything[: len(everything) // 2], everything[len(everything) // 2 :]
        bury(True)
        wait_until("held", lambda: replica.status().held_plan is not None)
        plan = replica.status().held_plan
        assert plan is not None
        assert (plan.reason, plan.removes) == (ProofReason.CHANGE_HELD, len(many))
        assert answered_ids(replica) == everything
        approve(f"{'0' * 16}, {plan.id}")
        wait_until("carried out", lambda: answered_ids(replica) == few)
        wait_until("told", lambda: replica.status().identity.approved_plans == [plan.id])

        bury(False)
        wait_until("back again", lambda: answered_ids(replica) == everything)
        bury(True)
        wait_until("held again", lambda: replica.status().held_plan is not None)
        again = replica.status().held_plan
        assert again is not None
        assert again.id == plan.id
        time.sleep(2)  # two checks, in which the old approval must not count
        assert answered_ids(replica) == everything
        approve("")
        wait_until("forgotten", lambda: replica.status().identity.approved_plans == [])
        assert answered_ids(replica) == everything
        approve(plan.id)
        wait_until("carried out again", lambda: answered_ids(replica) == few)


# --- the saved index


def served_and_stopped(settings: Settings) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)


def test_a_restart_takes_up_the_saved_index_and_proves_it(settings: Settings, database: WordnetDatabase) -> None:
    served_and_stopped(settings)
    gone = live_ids(database)[:4]
    execute(database, "DELETE FROM embeddings WHERE entity_id = ANY(%s)", gone)

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        assert answered_ids(replica) == live_ids(database), "what changed meanwhile is followed before anything is served"
        assert metric(replica, "saved_index_loads_total", result="loaded") == 1
        assert metric(replica, "repaired_rows_total", kind="ghost") == 0, "deleted upstream is no drift"
        assert replica.status().view.generation == 1  # type: ignore[union-attr]


def test_a_start_removes_what_a_killed_process_left_half_written(settings: Settings) -> None:
    served_and_stopped(settings)
    (settings.credentials / "password").write_text("wrong")  # so that nothing new is saved
    left = settings.data / ".partial-7"
    left.write_bytes(b"half")

    with running_replica(settings) as replica:
        wait_until("gone", lambda: not left.exists())
        wait_until("served", replica.is_ready)


def test_a_saved_index_with_turned_bytes_is_refused_and_built_anew(settings: Settings, database: WordnetDatabase) -> None:
    served_and_stopped(settings)
    flip_bytes(settings.data)

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        assert metric(replica, "saved_index_loads_total", result="ChecksumMismatch") == 1
        assert metric(replica, "repairs_total", action="rebuild", trigger="load", result="repaired") == 1
        assert answered_ids(replica) == live_ids(database)


def damage_ledger_and_index(folder: Path, dead: list[int]) -> Damage:
    return damage_both(folder, missing=20, changed=10, ghosts=dead[:5])


def damage_index(folder: Path, dead: list[int]) -> Damage:
    return damage_index_only(folder, ghosts=dead[:5])


@pytest.mark.parametrize("damage", [damage_ledger_and_index, damage_index])
def test_a_wrong_saved_index_is_never_served_and_its_drift_is_told_by_kind(
    settings: Settings, database: WordnetDatabase, damage: Callable[[Path, list[int]], Damage]
) -> None:
    served_and_stopped(settings)
    dead = dead_ids(database)
    done = damage(settings.data, dead)
    assert done.ghost == sorted(dead[:5])
    assert done.missing
    assert done.changed

    replica = Replica(settings)
    served: list[set[int]] = []

    def look() -> bool:
        if replica.view is not None:
            served.append(set(replica.view.live_entries()[0].tolist()))
        return replica.is_ready()

    replica.start()
    try:
        wait_until("ready", look)
        repair = replica.status().repairs[0]
        kinds = {"missing": len(done.missing), "ghost": len(done.ghost), "changed": len(done.changed), "duplicate": len(done.duplicate)}
        assert {kind: getattr(repair.drift, kind) for kind in kinds} == kinds
        assert (repair.action, repair.trigger, repair.result) == ("patch", "load", "repaired")
        assert {kind: metric(replica, "repaired_rows_total", kind=kind) for kind in kinds} == kinds
        assert answered_ids(replica) == live_ids(database)
        assert not any(view & set(dead) for view in served), "a deleted row was served"
    finally:
        replica.stop()


def test_the_saved_index_of_another_life_of_the_name_is_refused(settings: Settings) -> None:
    served_and_stopped(settings)
    rewrite(settings, lambda manifest: manifest["metadata"].update(uid="another"))

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        assert metric(replica, "saved_index_loads_total", result="WrongIndex") == 1


# --- Postgres away, and what else may be wrong with it


def break_password(settings: Settings) -> None:
    (settings.credentials / "password").write_text("wrong-canary-9c41")


def test_with_postgres_away_a_proven_saved_index_is_served_as_unproven(settings: Settings, database: WordnetDatabase) -> None:
    served_and_stopped(settings)
    break_password(settings)

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        status = replica.status()
        assert (status.proven, status.state) == (False, State.UNPROVEN)
        assert (status.source.reachable, status.source.reason) == (False, SourceReason.AUTHENTICATION_FAILED)
        assert answered_ids(replica) == live_ids(database)


@pytest.mark.parametrize("damage", [damage_ledger_and_index, damage_index])
def test_with_postgres_away_a_wrong_saved_index_is_not_served(
    settings: Settings, database: WordnetDatabase, damage: Callable[[Path, list[int]], Damage]
) -> None:
    served_and_stopped(settings)
    damage(settings.data, dead_ids(database))
    break_password(settings)

    with running_replica(settings) as replica:
        wait_until("a check", lambda: replica.status().proof.reason == SourceReason.AUTHENTICATION_FAILED)
        assert not replica.is_ready()
        assert replica.view is None


def test_told_to_refuse_it_does_not_serve_what_it_could_not_check(settings: Settings) -> None:
    served_and_stopped(settings)
    break_password(settings)
    rewrite(settings, lambda manifest: manifest["spec"]["consistency"].update(whenUnverified="Refuse"))

    with running_replica(settings) as replica:
        wait_until("a check", lambda: replica.status().proof.reason == SourceReason.AUTHENTICATION_FAILED)
        assert not replica.is_ready()


def test_told_to_refuse_it_leaves_once_the_last_proof_is_too_old_and_returns(settings: Settings, database: WordnetDatabase) -> None:
    def refuse(manifest: dict[str, Any]) -> None:
        manifest["spec"]["consistency"].update(whenUnverified="Refuse", maxStalenessSeconds=5)

    rewrite(settings, refuse)
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        execute(database, "ALTER TABLE embeddings RENAME TO away")
        wait_until("not ready", lambda: not replica.is_ready(), seconds=20)
        execute(database, "ALTER TABLE away RENAME TO embeddings")
        wait_until("ready again", replica.is_ready)


def test_a_table_that_goes_away_leaves_serving_untouched_and_says_which(settings: Settings, database: WordnetDatabase) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        execute(database, "ALTER TABLE faiss_metadata RENAME TO away")
        wait_until("the reason", lambda: replica.status().source.reason == SourceReason.TABLE_MISSING)
        assert "faiss_metadata" in replica.status().source.message
        assert replica.is_ready()
        assert not replica.proven
        assert replica.status().proof.result == Result.UNKNOWN

        execute(database, "ALTER TABLE away RENAME TO faiss_metadata")
        wait_until("proven again", lambda: replica.proven)
        assert replica.status().source.reason == SourceReason.REACHABLE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source__postgres__port": 1}, SourceReason.HOST_UNREACHABLE),
        ({"source__postgres__host": "no-such-host.invalid"}, SourceReason.HOST_UNREACHABLE),
        ({"source__postgres__database": "nowhere"}, SourceReason.DATABASE_MISSING),
        ({"source__table__name": "nowhere"}, SourceReason.TABLE_MISSING),
        ({"source__columns__vector": "nowhere"}, SourceReason.COLUMN_MISSING),
        ({"source__columns__vector": "text"}, SourceReason.TYPE_UNSUPPORTED),
        ({"index__dimension": 128}, SourceReason.DIMENSION_MISMATCH),
        ({"source__model": f"{MODEL}:int8"}, ProofReason.MODEL_KEY_NOT_FOUND),
    ],
)
def test_a_wrong_setting_gives_its_own_reason_and_nothing_is_served(
    database: WordnetDatabase, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    login = database.create_reader()
    settings = write_settings(tmp_path, make_manifest(database, **change), login)

    with running_replica(settings) as replica:
        wait_until(reason, lambda: replica.status().proof.reason == reason)
        status = replica.status()

    assert not replica.is_ready()
    assert status.proof.result == Result.UNKNOWN
    assert status.proof.message
    assert login.password not in json.dumps(status.proof.message + status.source.message)


def test_a_wrong_password_shows_in_no_status_and_no_log(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    break_password(settings)

    with running_replica(settings) as replica:
        wait_until("the reason", lambda: replica.status().source.reason == SourceReason.AUTHENTICATION_FAILED)
        texts = [str(replica.status()), caplog.text, replica.metrics.render().decode()]

    assert not any("canary" in text for text in texts)


def test_a_new_password_is_used_without_a_restart(settings: Settings, database: WordnetDatabase) -> None:
    password = (settings.credentials / "password").read_text()
    break_password(settings)
    with running_replica(settings) as replica:
        wait_until("the reason", lambda: replica.status().source.reason == SourceReason.AUTHENTICATION_FAILED)
        (settings.credentials / "password").write_text(password + "\n")
        wait_until("ready", replica.is_ready)


def test_sessions_that_are_killed_at_any_moment_leave_none_idle_in_transaction(settings: Settings, database: WordnetDatabase) -> None:
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        killed = 0
        for _ in range(400):
            killed += database.terminate_backends()
            if killed >= 3:
                break
        checks = metric(replica, "checks_total", layer="L0", result="ok")
        wait_until("another check", lambda: metric(replica, "checks_total", layer="L0", result="ok") > checks)
        assert replica.is_ready()
        assert not database.idle_in_transaction()
    database.expect_no_backends()


def test_a_check_that_did_not_look_into_the_index_claims_nothing_of_it(
    settings: Settings, database: WordnetDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle, "EXAMINE_ALWAYS_ROWS", 10)
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        monkeypatch.setattr(cycle, "find_due", lambda *_: set())
        checks = metric(replica, "checks_total", layer="L0", result="ok")
        wait_until("more checks", lambda: metric(replica, "checks_total", layer="L0", result="ok") > checks + 1)
        assert metric(replica, "checks_total", layer="L1", result="ok") == 1, "the whole comparison before it served"
        assert replica.status().proof.layers.L1 == Result.OK


# --- one check from the command line


def test_a_single_check_tells_ok_drift_and_unknown_and_changes_nothing(settings: Settings, database: WordnetDatabase) -> None:
    assert check_once(settings).proof.result == Result.OK, "without a saved index, of one built for it"
    served_and_stopped(settings)
    assert check_once(settings).proof.result == Result.OK

    damage_ledger_and_index(settings.data, dead_ids(database))
    before = {path.name: path.stat().st_mtime_ns for path in settings.data.iterdir()}
    status = check_once(settings)
    assert status.proof.result == Result.DRIFT
    assert (status.drift.missing, status.drift.ghost, status.drift.changed) == (20, 5, 10)
    assert status.drift_samples.ghost == [str(key) for key in dead_ids(database)[:5]]
    assert (len(status.drift_samples.missing), status.drift_samples.duplicate) == (10, [])
    assert set(map(int, status.drift_samples.missing)) <= set(live_ids(database))
    assert {path.name: path.stat().st_mtime_ns for path in settings.data.iterdir()} == before

    break_password(settings)
    assert check_once(settings).proof.result == Result.UNKNOWN


def test_a_full_disk_costs_only_the_saved_index(settings: Settings, database: WordnetDatabase) -> None:
    shutil.rmtree(settings.data)
    settings.data.write_text("a file where a folder should be")

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        assert answered_ids(replica) == live_ids(database)


def test_hnsw_answers_agree_with_exact_search(database: WordnetDatabase, tmp_path: Path) -> None:
    settings = write_settings(tmp_path, make_manifest(database, index__type="HNSW"), database.create_reader())
    with database.admin_connect() as connection:
        ids, vectors = live_rows(connection)
    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        assert replica.view is not None
        found, _ = replica.view.search(vectors[:200], 10)
    exact = np.argsort(-(vectors[:200] @ vectors.T), axis=1, kind="stable")[:, :10]
    hits = sum(len(set(found[row]) & set(ids[exact[row]])) for row in range(200))
    assert hits / 2000 >= 0.995


def test_login_and_settings_are_what_the_tests_think(settings: Settings) -> None:
    """A reader that could write would hide a product that needs more than SELECT."""
    login = Login((settings.credentials / "username").read_text(), (settings.credentials / "password").read_text())
    assert login.username != "postgres"
    assert replace(settings).data == settings.data


# --- when things keep failing


def test_a_first_load_that_fails_is_tried_again_after_growing_pauses(settings: Settings) -> None:
    rewrite(settings, lambda manifest: manifest["spec"]["source"]["postgres"].update(port=1))
    with running_replica(settings) as replica:
        time.sleep(4)  # pauses of 0.5, 1 and 2 s, a fifth more or less
        assert 2 <= metric(replica, "checks_total", layer="L0", result="unknown") <= 5


def test_a_rebuild_that_was_wished_for_and_fails_leaves_time_between_attempts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def fail(*_: object, **__: object) -> Belief:
        attempts.append(1)
        raise SourceError(SourceReason.CONNECTION_LOST, "lost in the middle of the load")

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        monkeypatch.setattr("vectorindex_indexer.replica.load_candidate", fail)
        rewrite(settings, lambda m: m["metadata"].update(annotations={"vectorindex.dev/rebuild-requested-at": "2126-01-02T03:04:06Z"}))
        time.sleep(5)

    assert 1 <= len(attempts) <= 5


def test_the_writer_outlives_any_number_of_failures(settings: Settings, database: WordnetDatabase) -> None:
    execute(database, "DROP TABLE embeddings")
    with running_replica(settings) as replica:
        replica._failures = 100_000  # as after a month
        wait_until("a failure", lambda: replica._failures > 100_000)
        time.sleep(0.5)
        assert replica.is_alive()
    assert pause_after(1) < pause_after(4)
    assert pause_after(1_000_000) <= 36


def test_a_candidate_that_was_not_right_at_once_is_not_reported_as_proven(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_badly(*arguments: Any, **options: Any) -> Belief:
        belief = load_candidate(*arguments, **options)
        return change_view(belief, [int(belief.view.live_entries()[0][0])], {})

    monkeypatch.setattr("vectorindex_indexer.replica.load_candidate", load_badly)
    with running_replica(settings) as replica:
        wait_until("a verdict", lambda: replica.status().proof.checked_at != "")
        status = replica.status()

    assert (status.proof.result, status.proven, status.proof.proven_at) == (Result.DRIFT, False, "")


def test_a_rebuild_that_ends_while_suspended_changes_nothing(
    settings: Settings, database: WordnetDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, loaded = threading.Event(), threading.Event()

    def load_slowly(*arguments: Any, **options: Any) -> Belief:
        go.wait(20)
        belief = load_candidate(*arguments, **options)
        loaded.set()
        return belief

    with running_replica(settings) as replica:
        wait_until("ready", replica.is_ready)
        monkeypatch.setattr("vectorindex_indexer.replica.load_candidate", load_slowly)
        rewrite(settings, lambda m: m["metadata"].update(annotations={"vectorindex.dev/rebuild-requested-at": "2126-01-02T03:04:06Z"}))
        time.sleep(1.5)
        rewrite(settings, lambda m: m["spec"].update(suspend=True))
        wait_until("suspended", lambda: replica.status().suspended)
        before = answered_ids(replica)
        execute(database, "DELETE FROM embeddings WHERE entity_id = %s", before[0])
        go.set()
        wait_until("the load", loaded.is_set)
        wait_until("a check that sees the change", lambda: replica.status().pending == 1)
        time.sleep(1)
        assert answered_ids(replica) == before

        rewrite(settings, lambda m: m["spec"].update(suspend=False))
        wait_until("the rebuild", lambda: replica.view is not None and replica.view.generation == 2)
        assert answered_ids(replica) == before[1:]


def test_a_suspended_replica_that_restarts_serves_what_was_proven_before(settings: Settings, database: WordnetDatabase) -> None:
    served_and_stopped(settings)
    execute(database, "DELETE FROM embeddings WHERE entity_id = %s", live_ids(database)[0])
    rewrite(settings, lambda manifest: manifest["spec"].update(suspend=True))

    with running_replica(settings) as replica:
        wait_until("serving", replica.is_ready)
        assert not replica.proven
        assert replica.status().proof.reason == ProofReason.PENDING_SUSPENDED


def test_a_saved_index_of_other_digests_is_never_served_without_a_proof(settings: Settings, database: WordnetDatabase) -> None:
    served_and_stopped(settings)
    execute(database, "ALTER TABLE faiss_metadata ALTER deleted DROP DEFAULT, ALTER deleted DROP NOT NULL")
    execute(database, "ALTER TABLE faiss_metadata ALTER deleted TYPE timestamptz USING CASE WHEN deleted IS NOT FALSE THEN now() END")

    with running_replica(settings) as replica:
        wait_until("a view", lambda: replica.view is not None)
        assert replica.view is not None
        assert replica.view.generation == 2
        assert replica.proven
