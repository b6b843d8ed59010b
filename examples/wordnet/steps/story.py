"""The seven steps. Each prints what it does, asserts what it claims (StepError if not), and returns what it measured."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from examples.wordnet.load import MODEL

from . import members, world
from .kubernetes import ROOT, Manifest
from .report import StepError, detail, expect, headline, table, wait_until
from .searching import Watch, recall, search, search_url, watching
from .world import INDEX, SEARCH, World

DAMAGE: Final = ROOT / "tests" / "support" / "damage.py"
DATA_FOLDER: Final = "/var/lib/vectorindex"
PERIOD_SECONDS: Final = 5  # of vectorindex.yaml
SLACK_SECONDS: Final = 5  # for the check itself and for asking about it, on a machine that does other things too
EXAMPLES: Final = ("apple", "sing", "gold", "feeling", "printer")
QUERIES: Final = 1000
RECALL: Final = 0.995
NEW_ENTITY: Final = 999_000_001
QUANTIZED: Final = "docs-int8"
KINDS: Final = ("missing", "ghost", "changed", "duplicate")
RESULTS: Final = ("ok", "drift", "unknown")


@dataclass
class Done:
    """What was done to the replicas on purpose, so that step 7 can compare the metrics with it."""

    drift: dict[str, dict[str, int]] = field(default_factory=dict)  # pod: kind: rows, since its process started
    broken: int = 0  # checks that were broken
    figures: dict[str, float] = field(default_factory=dict)


# --- 1: from nothing to a proven index


def set_up(scene: World, *chart_values: str) -> None:
    """Make Postgres, rows, operator and client."""
    world.set_up_namespaces(scene)
    world.set_up_postgres(scene)
    world.install_operator(scene, *chart_values)
    detail("the operator is installed by the chart")
    world.start_client(scene)
    world.delete_index(scene, INDEX)
    world.delete_index(scene, QUANTIZED)


def serve(scene: World) -> float:
    """Apply the VectorIndex and wait until it is served and proven; return the seconds that took."""
    started = time.monotonic()
    scene.kubernetes.apply(world.index_manifest(), namespace=SEARCH)
    world.wait_for_condition(scene, INDEX, "Ready", 120)
    ready = time.monotonic() - started
    world.wait_for_condition(scene, INDEX, "Consistent", 60)
    wait_for_all(scene, INDEX, replicas=2)
    detail(f"Ready {ready:.1f} s after kubectl apply")
    detail(scene.kubernetes.kubectl("get", "vidx", f"--namespace={SEARCH}", "--output=wide"))
    found = scene.kubernetes.get("vidx", INDEX, f"--namespace={SEARCH}")["status"]
    live = len(scene.upstream.live().ids)
    expect(found["rows"] == live, f"expected status.rows to be the {live} live rows of Postgres, got {found['rows']}")
    return ready


def wait_for_all(scene: World, index: str, replicas: int) -> None:
    """Wait until all replicas are served, and equal each other, as the resource's status tells."""

    def settled() -> bool:
        status = scene.kubernetes.get("vidx", index, f"--namespace={SEARCH}").get("status", {})
        # a check that takes a busy machine longer than one snapshot may last publishes no digest
        digests = {member["rootDigest"] for member in status.get("members", []) if "rootDigest" in member}
        return status.get("readyReplicas") == replicas and "rows" in status and len(digests) <= 1 and status.get("drift", 0) == 0

    wait_until(f"{replicas} replicas of {index} to serve equal rows", settled, 60)


# --- 2: searches


def find_neighbours(scene: World) -> float:
    """Search through the Service and compare with exact search over the live rows; return recall@10."""
    live, data = scene.upstream.live(), scene.upstream.data
    live_ids = set(live.ids.tolist())
    rows = [next(row for row, lemmas in enumerate(data.lemmas) if lemmas == text and int(data.ids[row]) in live_ids) for text in EXAMPLES]
    hits = search(scene, data.vectors[rows], k=4)
    names = dict(zip(data.ids.tolist(), data.lemmas, strict=True))
    for row, found in zip(rows, hits.ids.tolist(), strict=True):
        detail(f"{data.lemmas[row]:<28.28} -> {'; '.join(names[entity] for entity in found[1:])}")

    queries, dead = make_queries(scene)
    hits = search(scene, queries, k=10)
    expect(hits.proven, "expected answers of proven replicas")
    found = recall(hits.ids, live.nearest(queries, 10))
    ghosts = np.intersect1d(hits.ids, dead)
    what = f"{len(queries):,} queries, {len(dead)} of them vectors of tombstoned rows"
    detail(f"{what}: recall@10 {found:.4f}, tombstoned ids found: {len(ghosts)}")
    expect(found >= RECALL, f"expected recall@10 of at least {RECALL} against exact search, got {found:.4f}")
    expect(not ghosts.size, f"tombstoned ids were found: {ghosts[:5].tolist()}")
    return found


def make_queries(scene: World) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return 1,000 queries, among them the vectors of all tombstoned rows (where a ghost would show first), and the ids of these rows."""
    dead, live = scene.upstream.dead_ids(), scene.upstream.live()
    own = np.stack([scene.upstream.vector_of(int(entity)) for entity in dead])
    rest = live.vectors[np.linspace(0, len(live.ids) - 1, QUERIES - len(dead)).round().astype(int)]
    noise = np.random.default_rng(7).standard_normal(rest.shape).astype(np.float32) * np.float32(0.02)
    return np.ascontiguousarray(np.concatenate([own, rest + noise]), np.float32), dead


# --- 3: changes upstream


def follow_changes(scene: World) -> float:
    """Insert, update, tombstone and delete upstream; return the seconds until the slowest replica had followed."""
    pods = members.names(scene, INDEX)
    before = {pod: members.metrics(scene, pod) for pod in pods}
    live = scene.upstream.live()
    updated, tombstoned, deleted = (int(live.ids[place]) for place in (1000, 2000, 3000))
    new_vectors = make_unrelated(2)
    with scene.upstream.connection.transaction():
        insert_row(scene, NEW_ENTITY, new_vectors[0])
        changes: tuple[tuple[str, tuple[object, ...]], ...] = (
            ("UPDATE embeddings SET vector = %s WHERE entity_id = %s AND model_name = %s", (pack_row(new_vectors[1]), updated, MODEL)),
            ("UPDATE faiss_metadata SET deleted = true WHERE entity_id = %s AND model_name = %s", (tombstoned, MODEL)),
            ("DELETE FROM embeddings WHERE entity_id = %s AND model_name = %s", (deleted, MODEL)),
        )
        for statement, values in changes:
            scene.upstream.execute(statement, *values)
    committed: datetime = scene.upstream.execute("SELECT clock_timestamp()")[0][0]
    documents = {pod: members.wait_for_proof(scene, pod, committed, 4 * PERIOD_SECONDS) for pod in pods}
    seconds = max((members.as_of(document) - committed).total_seconds() for document in documents.values())
    detail(f"one row inserted, one updated, one tombstoned, one deleted: both replicas proved the state {seconds:.1f} s later")
    expect(seconds <= PERIOD_SECONDS + SLACK_SECONDS, f"expected all replicas to follow within {PERIOD_SECONDS} s, it took {seconds:.1f} s")

    rows = len(scene.upstream.live().ids)
    for number, pod in enumerate(pods):
        got = documents[pod]["view"]["rows"]
        expect(got == rows, f"{pod}: expected {rows} rows, got {got}")
        hits = search(scene, np.concatenate([new_vectors, live.vectors[[2000, 3000]]]), url=search_url(pod=number)).ids
        expect(hits[0, 0] == NEW_ENTITY, f"{pod}: the inserted row is not found by its vector")
        expect(hits[1, 0] == updated, f"{pod}: the updated row is not found by its new vector")
        expect(not np.isin(hits, [tombstoned, deleted]).any(), f"{pod}: a row that is gone is still found")
        compare_counters(pod, before[pod], members.metrics(scene, pod))
    return seconds


def compare_counters(pod: str, before: members.Metrics, after: members.Metrics) -> None:
    """Require that the changes of step 3 count as synchronised and not as drift."""

    def grown(name: str, label: str) -> dict[str, int]:
        old, new = before.counts(name, label), after.counts(name, label)
        return {key: value - old.get(key, 0) for key, value in new.items() if value != old.get(key, 0)}

    synchronised = grown("vectorindex_synchronised_rows_total", "kind")
    expected = {"inserted": 1, "updated": 1, "deleted": 2}
    expect(synchronised == expected, f"{pod}: expected synchronised rows {expected}, got {synchronised}")
    repaired = grown("vectorindex_repaired_rows_total", "kind")
    expect(not repaired, f"{pod}: changes made upstream were counted as drift: {repaired}")


def make_unrelated(count: int) -> NDArray[np.float32]:
    """Return unit vectors that lie far from all texts."""
    vectors = np.random.default_rng(11).standard_normal((count, 384))
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def pack_row(vector: NDArray[np.float32]) -> bytes:
    """Return a vector as column embeddings.vector holds it."""
    return vector.astype("<f4").tobytes()


def insert_row(scene: World, entity: int, vector: NDArray[np.float32]) -> None:
    """Insert a live row, as the application would."""
    scene.upstream.execute(
        "INSERT INTO embeddings (entity_id, model_name, vector, text) VALUES (%s, %s, %s, 'made by the demo')",
        entity,
        MODEL,
        pack_row(vector),
    )
    scene.upstream.execute("INSERT INTO faiss_metadata (entity_id, model_name) VALUES (%s, %s)", entity, MODEL)


# --- 4: seed defect 1, the saved index is not what Postgres holds


@dataclass(frozen=True)
class Attack:
    """One damage to the saved index of one pod. `shown` says what it stands for."""

    kind: str
    pod: int
    shown: str


ATTACKS: Final = (
    Attack("flip", 1, "bytes of the saved index flipped"),
    Attack("wrong", 0, "rows lost, tombstoned rows brought back, vectors changed, in index and ledger alike, all checksums right"),
    Attack("index-only", 1, "the same and ids twice, in the index only, all checksums right"),
)


@dataclass(frozen=True)
class Damaged:
    """What was done to a saved index, by kind as ids, and when its container was told to end, by two clocks."""

    found: Mapping[str, list[int]]
    started: float
    killed: datetime

    @property
    def counts(self) -> dict[str, int]:
        """Rows by kind."""
        return {kind: len(ids) for kind, ids in self.found.items()}


def damage_saved_index(scene: World, pod: str, kind: str, ghosts: Sequence[int] = ()) -> Damaged:
    """Damage the saved index of a pod and restart its container; without `ghosts`, ids are made up."""
    wait_until(f"{pod} to have saved its newest state", lambda: is_saved(scene, pod), 45)
    restarts = restart_count(scene, pod)
    arguments = ["--ghost", *map(str, ghosts)] if ghosts else []
    told = json.loads(scene.kubernetes.execute(SEARCH, pod, "python3", "-", kind, DATA_FOLDER, *arguments, text=DAMAGE.read_text()))
    started = time.monotonic()
    killed: datetime = scene.upstream.execute("SELECT clock_timestamp()")[0][0]
    scene.kubernetes.execute(SEARCH, pod, "python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
    wait_until(f"the container of {pod} to restart", lambda: restart_count(scene, pod) > restarts, 60)
    return Damaged({kind: told[kind] for kind in KINDS}, started, killed)


def heal_saved_index(scene: World, done: Done, attack: Attack) -> float:
    """Damage the saved index of one pod and restart its container; return the seconds from the kill to a proven replica."""
    pod = f"{INDEX}-index-{attack.pod}"
    detail(f"{pod}: {attack.shown}")
    seconds = heal_alone(scene, done, attack)
    world.wait_for_condition(scene, INDEX, "Consistent", 60)
    wait_for_all(scene, INDEX, replicas=2)
    return seconds


def heal_alone(scene: World, done: Done, attack: Attack) -> float:
    """Do what `heal_saved_index` does as far as the pod alone does it: no operator is needed."""
    pod = f"{INDEX}-index-{attack.pod}"
    dead = scene.upstream.dead_ids()
    ghosts = [] if attack.kind == "flip" else [int(entity) for entity in dead[:: len(dead) // 5][:5]]
    damaged = damage_saved_index(scene, pod, attack.kind, ghosts)
    document = members.wait_for_proof(scene, pod, damaged.killed, 60)
    seconds = time.monotonic() - damaged.started
    check_healing(pod, attack, damaged.counts, document, members.metrics(scene, pod))
    check_answers(scene, attack.pod)
    done.drift[pod] = damaged.counts
    return seconds


def check_healing(pod: str, attack: Attack, damage: Mapping[str, int], document: Mapping[str, Any], metrics: members.Metrics) -> None:
    """Require that the damage was refused, or found by kind and count and repaired, before the pod served."""
    loads = {result: count for result, count in metrics.counts("vectorindex_saved_index_loads_total", "result").items() if count}
    repair = document["repairs"][0] if document["repairs"] else None
    if repair is None or repair["trigger"] != "load" or repair["result"] != "repaired":
        raise StepError(f"{pod}: expected a repair of what was loaded, got {repair}")
    if attack.kind == "flip":
        expect(loads == {"ChecksumMismatch": 1}, f"{pod}: expected the saved index to be refused for its checksum, got {loads}")
        expect(repair["action"] == "rebuild", f"{pod}: expected a rebuild, got {repair['action']}")
        detail(f"refused ({next(iter(loads))}), built anew and proven")
        return
    expect(loads == {"loaded": 1}, f"{pod}: expected the saved index to be loaded, got {loads}")
    expect(repair["drift"] == damage, f"{pod}: expected drift {dict(damage)}, got {repair['drift']}")
    repaired = metrics.counts("vectorindex_repaired_rows_total", "kind")
    expect(repaired == damage, f"{pod}: expected repaired rows {dict(damage)}, the metric says {repaired}")
    found = ", ".join(f"{count} {kind}" for kind, count in damage.items() if count)
    detail(f"found before serving: {found}; repaired ({repair['action']}) and proven")


def check_answers(scene: World, pod: int) -> None:
    """Require that one pod answers as exact search over the live rows does, and nothing that is dead."""
    queries, dead = make_queries(scene)
    hits = search(scene, queries, url=search_url(pod=pod))
    found = recall(hits.ids, scene.upstream.live().nearest(queries, 10))
    expect(hits.proven, f"pod {pod}: answers unproven")
    expect(found >= RECALL, f"pod {pod}: expected recall@10 of at least {RECALL} after the repair, got {found:.4f}")
    expect(not np.isin(hits.ids, dead).any(), f"pod {pod}: a tombstoned row is found")


def is_saved(scene: World, pod: str) -> bool:
    """Whether the saved index of a pod holds what the pod serves: else it would save once more at its end, over any damage."""
    status = members.status(scene, pod)
    text = scene.kubernetes.execute(SEARCH, pod, "python3", "-c", f"print(open('{DATA_FOLDER}/manifest.json').read())")
    saved, view, root = json.loads(text)["body"], status["view"], status["proof"]["rootDigest"]
    if not root:  # no single snapshot covered the last check: that of the next one may
        return False
    shape = (saved["meta"]["root_digest"], saved["meta"]["generation"], len(saved["segments"]))
    return shape == (root, view["generation"], view["segments"])


def restart_count(scene: World, pod: str) -> int:
    """Return how often the container of a pod was restarted."""
    found = scene.kubernetes.get("pod", pod, f"--namespace={SEARCH}")["status"].get("containerStatuses", [])
    return sum(int(container["restartCount"]) for container in found)


def check_watch(watch: Watch) -> None:
    """Require that the client that searched all the time was answered always, from proven replicas, without a dead row."""
    shown = asdict(watch) | {"messages": list(watch.messages)}
    expect(watch.answered > 0, f"the client that searched all the time made no search: {shown}")
    expect(watch.failed == 0, f"searches failed meanwhile: {shown}")
    expect(watch.unproven == 0, f"unproven answers were given meanwhile: {shown}")
    expect(watch.forbidden == 0, f"tombstoned rows were found meanwhile: {shown}")
    detail(f"meanwhile {watch.answered:,} searches through the Service: 0 failed, 0 unproven, 0 with a tombstoned row")


def change_and_damage(scene: World, done: Done) -> None:
    """Do steps 3 and 4 while a client searches all the time."""
    queries, dead = make_queries(scene)
    headline(3, "Rows change in Postgres: every replica follows, and that is no drift")
    with watching(scene, queries, dead) as watch:
        done.figures["followed_seconds"] = follow_changes(scene)
        headline(4, "Defect 1: a replica starts from a saved index that is wrong")
        for attack in ATTACKS:
            done.figures[f"healed_{attack.kind}_seconds"] = heal_saved_index(scene, done, attack)
    check_watch(watch)


# --- 5: seed defect 2, a model key that matches nothing


def refuse_wrong_key(scene: World) -> None:
    """Serve an index whose model key the table has not, see it not proven and not served, and correct the key."""
    manifest = world.index_manifest()
    manifest["metadata"]["name"] = QUANTIZED
    manifest["spec"]["replicas"] = 1
    manifest["spec"]["source"]["model"] = f"{MODEL}:int8"
    scene.kubernetes.apply(manifest, namespace=SEARCH)
    condition = wait_until("Consistent to become Unknown for ModelKeyNotFound", lambda: unknown_key(scene), 60)
    detail(f"Consistent is {condition['status']} ({condition['reason']}): {condition['message']}")
    expect(
        MODEL in condition["message"].replace(f"{MODEL}:int8", ""),
        f"the message does not name the key the table has: {condition['message']}",
    )
    document = members.status(scene, f"{QUANTIZED}-index-0")
    expect(not document["ready"] and not document["proven"], f"an index without a row was served: {document}")
    expect_refused(scene, search_url(QUANTIZED, pod=0))
    expect(world.conditions(scene, QUANTIZED)["Ready"]["status"] != "True", "expected Ready not to be True while nothing is proven")

    patch = {"spec": {"source": {"model": MODEL}}}
    scene.kubernetes.kubectl("patch", "vidx", QUANTIZED, f"--namespace={SEARCH}", "--type=merge", f"--patch={json.dumps(patch)}")
    world.wait_for_condition(scene, QUANTIZED, "Consistent", 90)
    wait_for_all(scene, QUANTIZED, replicas=1)
    hits = search(scene, scene.upstream.live().vectors[:1], url=search_url(QUANTIZED))
    expect(hits.proven, "expected a proven answer after the correction")
    detail("corrected by kubectl patch: Consistent is True, and it answers")
    world.delete_index(scene, QUANTIZED)


def unknown_key(scene: World) -> Manifest | None:
    """Return the condition Consistent once it is Unknown because of the key."""
    condition = world.conditions(scene, QUANTIZED).get("Consistent")
    if condition and condition["status"] == "True":
        raise StepError(f"an index whose key matches nothing is called consistent: {condition}")
    return condition if condition and condition["reason"] == "ModelKeyNotFound" and condition["status"] == "Unknown" else None


def expect_refused(scene: World, url: str) -> None:
    """Require that a search gets 503."""
    try:
        search(scene, make_unrelated(1), url=url)
    except StepError as error:
        expect("503" in str(error), f"expected 503 from a replica that has proven nothing, got: {error}")
        return
    raise StepError("a replica that has proven nothing answered a search")


# --- 6: seed defect 3, connections that break


TERMINATE: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE usename = 'docs_reader' AND wait_event_type = 'Lock'
"""
# Runs on the server, as a check takes only milliseconds: wait until one of its statements reads rows, and cancel that.
CANCEL: Final = """
    DO $$
    DECLARE victim integer;
    BEGIN
        FOR attempt IN 1..15000 LOOP
            PERFORM pg_stat_clear_snapshot();
            SELECT pid INTO victim FROM pg_stat_activity
            WHERE usename = 'docs_reader' AND state = 'active' AND query ~* '(sum|sha256|width_bucket|copy)' AND xact_start IS NOT NULL;
            IF victim IS NOT NULL AND pg_cancel_backend(victim) THEN
                RETURN;
            END IF;
            PERFORM pg_sleep(0.001);
        END LOOP;
        RAISE EXCEPTION 'no statement of a check was seen';
    END $$
"""
IDLE: Final = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'docs_reader' AND state LIKE 'idle in transaction%'"


def survive_broken_connections(scene: World, done: Done) -> None:
    """Terminate backends and cancel a statement in the middle of checks; require that the next checks succeed and nothing is left open."""
    pods = members.names(scene, INDEX)
    unknown = count_unknown(scene, pods)
    with scene.upstream.connection.transaction():
        scene.upstream.execute("LOCK TABLE embeddings IN ACCESS EXCLUSIVE MODE")  # so that checks stand still in their transaction
        ended = wait_until("a check to wait for a lock", lambda: terminate_waiting(scene), 3 * PERIOD_SECONDS, 0.05)
    detail(f"{ended} backend(s) terminated in the middle of a check")
    wait_until("the broken check to be counted as unknown", lambda: count_unknown(scene, pods) > unknown, 30)
    expect_recovery(scene, pods)

    cancel_a_statement(scene, pods)
    detail("one statement of a check cancelled")
    done.broken += 2
    expect_recovery(scene, pods)
    world.wait_for_condition(scene, INDEX, "Consistent", 60)


def cancel_a_statement(scene: World, pods: list[str]) -> None:
    """Cancel a statement that reads rows, and see the check counted as unknown.

    Checks of all rows are asked for meanwhile, as their statements last longest; still a statement may end before its cancellation comes.
    """
    unknown = count_unknown(scene, pods)

    def is_broken() -> bool:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        wish = f"vectorindex.dev/validate-requested-at={now}"
        scene.kubernetes.kubectl("annotate", "--overwrite", "vidx", INDEX, f"--namespace={SEARCH}", wish)
        scene.upstream.execute(CANCEL)
        wait_until("the failed check to be counted", lambda: count_unknown(scene, pods) > unknown, 3)
        return True

    wait_until("a statement of a check to be cancelled, and the check to be counted as unknown", is_broken, 60)


def terminate_waiting(scene: World) -> int:
    """End the backends of replicas that wait for a lock, and return how many there were."""
    scene.upstream.execute("SELECT pg_stat_clear_snapshot()")  # within a transaction, activity is read once only
    ended: int = scene.upstream.execute(TERMINATE)[0][0]
    return ended


def count_unknown(scene: World, pods: list[str]) -> float:
    """Return how many checks ended unknown."""
    return sum(members.metrics(scene, pod).value("vectorindex_checks_total", layer="L0", result="unknown") for pod in pods)


def expect_recovery(scene: World, pods: list[str]) -> None:
    """Require that every replica proves a state after now, and that no connection of ours stays idle in a transaction."""
    now: datetime = scene.upstream.execute("SELECT clock_timestamp()")[0][0]
    for pod in pods:
        members.wait_for_proof(scene, pod, now, 4 * PERIOD_SECONDS)
    wait_until("no connection to be idle in a transaction", lambda: scene.upstream.execute(IDLE)[0][0] == 0, 2, 0.05)
    detail("the next checks succeeded; no connection is left idle in a transaction")


# --- 7: the metrics


def compare_metrics(scene: World, done: Done) -> None:
    """Print what pods and operator measured, and require that it is what was done to them."""
    live = len(scene.upstream.live().ids)
    rows, unknown = [], 0
    for pod in members.names(scene, INDEX):
        metrics = members.metrics(scene, pod)
        repaired = metrics.counts("vectorindex_repaired_rows_total", "kind")
        results = {result: int(metrics.value("vectorindex_checks_total", result=result)) for result in RESULTS}
        vectors, drift = int(metrics.value("vectorindex_vectors")), int(metrics.value("vectorindex_drift_rows"))
        compare_pod(pod, done.drift.get(pod, dict.fromkeys(KINDS, 0)), repaired, results["drift"])
        expect(drift == 0, f"{pod}: expected no drift now, the metric says {drift}")
        expect(metrics.value("vectorindex_check_result", result="ok") == 1, f"{pod}: the last check is not ok")
        expect(vectors == live, f"{pod}: expected {live} vectors, the metric says {vectors}")
        unknown += results["unknown"]
        rows.append((pod, vectors, drift, *(repaired[kind] for kind in KINDS), *results.values()))
    expect(unknown >= done.broken, f"expected at least {done.broken} checks that ended unknown, the metrics say {unknown}")
    header = ("pod", "vectors", "drift", *(f"{kind} repaired" for kind in KINDS), *(f"layers {result}" for result in RESULTS))
    detail(table(header, rows))
    detail(table(("operator", "docs"), compare_operator(scene, live)))


def compare_pod(pod: str, done: Mapping[str, int], repaired: Mapping[str, int], drift_checks: int) -> None:
    """Require that a pod has repaired, and called drift, what was done to it and nothing else."""
    expect(repaired == done, f"{pod}: expected repaired rows {dict(done)}, the metric says {dict(repaired)}")
    expect(bool(drift_checks) == any(done.values()), f"{pod}: {drift_checks} checks called drift what was {dict(done)}")


def compare_operator(scene: World, live: int) -> list[tuple[str, int]]:
    """Require that the operator's metrics tell of a healthy index, and return them."""

    def read() -> list[tuple[str, int]] | None:
        metrics = members.operator_metrics(scene)
        labels = {"namespace": SEARCH, "name": INDEX}
        told = {
            condition: int(metrics.value("vectorindex_operator_condition", type=condition, status="True", **labels))
            for condition in ("Ready", "Consistent", "SourceAvailable")
        }
        told["rows"] = int(metrics.value("vectorindex_operator_rows", **labels))
        told["drift rows"] = int(metrics.value("vectorindex_operator_drift_rows", **labels))
        told["members serving"] = int(metrics.value("vectorindex_operator_members", serving="true", **labels))
        expected = {"Ready": 1, "Consistent": 1, "SourceAvailable": 1, "rows": live, "drift rows": 0, "members serving": 2}
        expect(told == expected, f"the operator's metrics: expected {expected}, got {told}")
        return list(told.items())

    return wait_until("the operator's metrics to tell of a healthy index", read, 30)
