"""Makes things happen to an index for some minutes, one after the other, so that dashboards have something to show."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from examples.wordnet.load import MODEL, READER
from examples.wordnet.steps import members, story, world
from examples.wordnet.steps.kubernetes import Manifest
from examples.wordnet.steps.monitoring import TOKEN_FILE
from examples.wordnet.steps.report import StepError, detail, expect, say, wait_until, warn
from examples.wordnet.steps.searching import watching
from examples.wordnet.steps.story import QUANTIZED
from examples.wordnet.steps.upstream import Upstream
from examples.wordnet.steps.world import INDEX, SEARCH, SYSTEM, World

FIRST_ENTITY: Final = 990_000_000
BATCH: Final = 20  # rows inserted at a time; half of those before are tombstoned
CHANGE_SECONDS: Final = 3
HELD_SHARE: Final = 3  # every third row is tombstoned at once: more than maxChangePercent allows
CALM_SECONDS: Final = 18  # between two events, so that each can be told from the next
LASTING_SECONDS: Final = 45  # of what goes on for a while: longer than the alerts wait here
ALERTS_WAIT: Final = ("VectorIndexDriftNotRepaired", "VectorIndexSourceUnavailable", "VectorIndexRepairHeld", "VectorIndexCheckUnknown")
WEBHOOK: Final = "vectorindex-webhook"  # Service of the operator, and Secret with its token
CHART_VALUES: Final = ("clusterWide=true", "webhook.enabled=true", f"webhook.auth.existingSecret={WEBHOOK}")
RULE_VALUES: Final = tuple(f"monitoring.prometheusRule.for.{alert}=20s" for alert in ALERTS_WAIT)
"""Alerts fire within seconds here, as nobody wants to wait for pictures."""
ALERTMANAGER: Final = {
    "route": {
        "receiver": "people",
        "routes": [
            {
                "receiver": "operator",
                "matchers": ['heal="validate"'],
                "group_by": ["alertname", "namespace", "index"],
                "group_wait": "1s",
                "group_interval": "20s",
                "repeat_interval": "1m",
            }
        ],
    },
    "receivers": [
        {"name": "people"},
        {
            "name": "operator",
            "webhook_configs": [
                {
                    "url": f"http://{WEBHOOK}.{SYSTEM}.svc:9091/webhooks/alertmanager",
                    "http_config": {"authorization": {"credentials_file": TOKEN_FILE}},
                }
            ],
        },
    ],
}


def make_everything_happen(scene: World) -> None:
    """Let searches and changes go on, and do one thing after the other; return when all is well again."""
    queries, dead = story.make_queries(scene)
    failed: list[str] = []
    with changing(scene) as changes, watching(scene, queries[-200:], dead[:0], kept=4):
        for title, event in EVENTS:
            time.sleep(CALM_SECONDS)  # a stretch of normal life, to be seen as such
            say(f"   {time.strftime('%H:%M:%S')}  {title}")
            try:
                event(scene, changes)
            except StepError as error:  # what follows is still worth a picture to whoever looks for the reason
                warn(f"{title}: {error}")
                failed.append(title)
        time.sleep(CALM_SECONDS)
    expect(not failed, f"did not end as they should: {', '.join(failed)}")


class Changes(threading.Thread):
    """Changes a few rows every few seconds, as applications do, over a connection of its own; not while somebody holds `still`."""

    def __init__(self, scene: World, connection: psycopg.Connection[Any]) -> None:
        super().__init__()
        self.still = threading.Lock()
        self.ended = threading.Event()
        self._scene = World(scene.cluster, scene.kubernetes, scene.images)
        self._scene.set_upstream(Upstream(connection, scene.upstream.data))

    def run(self) -> None:
        """Change rows until `ended` is set."""
        vectors = story.make_unrelated(BATCH)
        first = FIRST_ENTITY
        while not self.ended.wait(CHANGE_SECONDS):
            former = (first - BATCH, first - BATCH // 2, MODEL)
            with self.still, self._scene.upstream.connection.transaction():
                for place, vector in enumerate(vectors):
                    story.insert_row(self._scene, first + place, vector)
                self._scene.upstream.execute(
                    "UPDATE faiss_metadata SET deleted = true WHERE entity_id >= %s AND entity_id < %s AND model_name = %s", *former
                )
            first += BATCH


@contextmanager
def changing(scene: World) -> Iterator[Changes]:
    """Let rows change as long as the block runs."""
    scene.upstream.execute("DELETE FROM faiss_metadata WHERE entity_id >= %s", FIRST_ENTITY)
    scene.upstream.execute("DELETE FROM embeddings WHERE entity_id >= %s", FIRST_ENTITY)
    info = scene.upstream.connection.info
    with psycopg.connect(
        host=info.host, port=info.port, user=info.user, password=info.password, dbname=info.dbname, sslmode="disable", autocommit=True
    ) as connection:
        changes = Changes(scene, connection)
        changes.start()
        try:
            yield changes
        finally:
            changes.ended.set()
            changes.join()


def plant(scene: World, changes: Changes, number: int) -> None:
    """Damage the saved index of one replica and restart it, once it has followed and saved everything: else it saves anew at its end."""
    pod = f"{INDEX}-index-{number}"
    with changes.still:
        last_change: datetime = scene.upstream.execute("SELECT clock_timestamp()")[0][0]
        members.wait_for_proof(scene, pod, last_change, 60)
        story.damage_saved_index(scene, pod, "wrong")


def damage_and_repair(scene: World, changes: Changes) -> None:
    """Plant drift into the saved index of one replica and restart it: it is found and repaired before the replica serves."""
    plant(scene, changes, 0)
    wait_for_everything(scene)


def damage_and_hold(scene: World, changes: Changes) -> None:
    """Do the same with `healing.mode: Plan`: the repair waits for approval."""
    patch(scene, {"healing": {"mode": "Plan"}})
    plant(scene, changes, 1)
    wait_for_plan(scene)
    time.sleep(LASTING_SECONDS)
    approve(scene)
    patch(scene, {"healing": {"mode": "Auto"}})
    wait_for_everything(scene)


def lock_out(scene: World, _: Changes) -> None:
    """Let Postgres refuse the replicas for a while."""
    scene.upstream.execute(f"ALTER ROLE {READER} NOLOGIN")
    scene.upstream.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", READER)
    time.sleep(LASTING_SECONDS)
    scene.upstream.execute(f"ALTER ROLE {READER} LOGIN")
    wait_for_everything(scene)


def tombstone_too_many(scene: World, _: Changes) -> None:
    """Tombstone a third of all rows, which is held, and take it back."""
    rows = scene.upstream.execute(
        "UPDATE faiss_metadata SET deleted = true WHERE deleted IS FALSE AND model_name = %s AND entity_id %% %s = 0 RETURNING entity_id",
        MODEL,
        HELD_SHARE,
    )
    wait_for_plan(scene)
    time.sleep(LASTING_SECONDS)
    ids = [row[0] for row in rows]
    scene.upstream.execute("UPDATE faiss_metadata SET deleted = false WHERE model_name = %s AND entity_id = ANY(%s)", MODEL, ids)
    wait_for_everything(scene)


def rebuild(scene: World, _: Changes) -> None:
    """Ask for a rebuild, and for one replica more."""
    wish(scene, "rebuild-requested-at", now())
    scene.kubernetes.kubectl("scale", "vidx", INDEX, f"--namespace={SEARCH}", "--replicas=3")
    wait_until("three replicas to serve", lambda: status(scene).get("readyReplicas") == 3, 120)


def lose_leader(scene: World, _: Changes) -> None:
    """Delete the operator that acts."""
    scene.kubernetes.kubectl("delete", "pod", world.leading_operator(scene), f"--namespace={SYSTEM}", "--wait=false")


EVENTS: Final[tuple[tuple[str, Callable[[World, Changes], None]], ...]] = (
    ("drift is planted in replica 0, which repairs it", damage_and_repair),
    ("drift is planted in replica 1, where repairs wait for approval", damage_and_hold),
    ("Postgres refuses the replicas", lock_out),
    ("a third of all rows is tombstoned at once", tombstone_too_many),
    ("a rebuild, and a third replica", rebuild),
    ("the leading operator is deleted", lose_leader),
)


# --- what a person would do


def serve_two(scene: World) -> None:
    """Serve the index of the example, and one of 8-bit codes beside it."""
    story.serve(scene)
    manifest = world.index_manifest()
    manifest["metadata"]["name"] = QUANTIZED
    manifest["spec"]["replicas"] = 1
    manifest["spec"]["index"]["quantization"] = "SQ8"
    scene.kubernetes.apply(manifest, namespace=SEARCH)
    world.wait_for_condition(scene, QUANTIZED, "Consistent", 120)
    detail(f"{INDEX} and {QUANTIZED} are served")


def now() -> str:
    """Return the time as wishes hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def status(scene: World) -> Manifest:
    """Return the status of the index."""
    found: Manifest = scene.kubernetes.get("vidx", INDEX, f"--namespace={SEARCH}").get("status", {})
    return found


def patch(scene: World, spec: Manifest) -> None:
    """Change the spec of the index."""
    scene.kubernetes.kubectl("patch", "vidx", INDEX, f"--namespace={SEARCH}", "--type=merge", f"--patch={json.dumps({'spec': spec})}")


def wish(scene: World, name: str, value: str) -> None:
    """Write an annotation."""
    scene.kubernetes.kubectl("annotate", "vidx", INDEX, f"--namespace={SEARCH}", "--overwrite", f"vectorindex.dev/{name}={value}")


def wait_for_plan(scene: World) -> None:
    """Wait until something is held."""
    wait_until("a held plan", lambda: bool(status(scene).get("heldPlans")), 120)


def approve(scene: World) -> None:
    """Approve whatever is held."""
    wish(scene, "approve-plan", ",".join(plan["id"] for plan in status(scene)["heldPlans"]))


def wait_for_everything(scene: World) -> None:
    """Wait until nothing is held and all replicas are proven again."""

    def settled() -> bool:
        found = status(scene)
        held = found.get("heldPlans", [])
        if held or found.get("readyReplicas") != found.get("replicas"):
            raise StepError(f"{found.get('readyReplicas')} of {found.get('replicas')} replicas are ready, held: {held}")
        return True

    wait_until("all replicas to be ready and nothing held", settled, 120)
    world.wait_for_condition(scene, INDEX, "Consistent", 120)
