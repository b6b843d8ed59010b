"""Rebuilds that are killed at random points while rows die: no dead row is ever answered after its death, and nothing half done stays."""

import json
import logging
import random
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import psycopg
import pytest

from tests.support.background import work_beside
from tests.support.postgres import Database
from tests.support.replica import wait_until, write_settings
from tests.support.serving import Serving, serving
from vectorindex_indexer import report
from vectorindex_indexer.config import Settings, parse_time

LOG = logging.getLogger(__name__)

DIMENSION: Final = 32
ROWS: Final = 800  # live at any time: one search answers all of them
DEAD_ROWS: Final = 600  # stay in the table as tombstones, before they are deleted as well
K: Final = 1000
TABLE: Final = "CREATE TABLE documents (id bigint PRIMARY KEY, vector bytea NOT NULL, deleted boolean NOT NULL DEFAULT false)"
SEARCH: Final = json.dumps({"vector": [1.0] * DIMENSION, "k": K}).encode()
BUILDING: Final = "building an index"
SWITCHED: Final = "repair finished"  # what a wish for a rebuild ends with
PARTIAL: Final = ".partial-"


# --- rows that die, and what is known of their deaths


@dataclass(frozen=True)
class Event:
    """When a row came or went: the transaction, and the moment after which everybody could see it."""

    transaction: int
    committed: datetime


@dataclass
class Writer:
    """Tombstones, deletes and inserts rows all the time. An id that died never comes back."""

    database: Database
    chance: random.Random
    live: list[int] = field(default_factory=list)
    buried: list[int] = field(default_factory=list)  # tombstoned, and still in the table
    births: dict[int, Event] = field(default_factory=dict)
    deaths: dict[int, Event] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)  # ids whose death has begun, committed or not
    _fresh: int = 0

    def fill(self) -> None:
        """Make the table."""
        with self.database.admin_connect(autocommit=False) as connection:
            connection.execute(TABLE)
            self._commit(connection, self._insert(connection, ROWS), [])

    def write(self, stop: threading.Event) -> None:
        """Write until told to stop."""
        with psycopg.connect(self.database.conninfo(application_name="test-writer"), autocommit=False) as connection:
            while not stop.wait(self.chance.uniform(0.002, 0.02)):
                self._change(connection)

    def _change(self, connection: psycopg.Connection[Any]) -> None:
        """Let some rows die, half of them at once and for good, and as many others come."""
        dying = self.chance.sample(self.live, self.chance.randrange(1, 7))
        self.begun.update(dying)
        tombstoned, deleted = dying[: len(dying) // 2 + 1], dying[len(dying) // 2 + 1 :]
        connection.execute("UPDATE documents SET deleted = true WHERE id = ANY(%s)", [tombstoned])
        forgotten = self.buried[:-DEAD_ROWS]
        connection.execute("DELETE FROM documents WHERE id = ANY(%s)", [deleted + forgotten])
        born = self._insert(connection, len(dying))
        if self.chance.random() < 0.1:
            time.sleep(0.03)  # a commit that comes late
        self._commit(connection, born, dying)
        self.buried = [*self.buried[len(forgotten) :], *tombstoned]

    def _insert(self, connection: psycopg.Connection[Any], count: int) -> list[int]:
        born = list(range(self._fresh, self._fresh + count))
        self._fresh += count
        vectors = np.random.default_rng(born[0]).standard_normal((count, DIMENSION)).astype("<f4")
        rows = [(key, vector.tobytes()) for key, vector in zip(born, vectors, strict=True)]
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO documents (id, vector) VALUES (%s, %s)", rows)
        return born

    def _commit(self, connection: psycopg.Connection[Any], born: list[int], dead: list[int]) -> None:
        ((transaction,),) = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchall()
        connection.commit()
        event = Event(transaction, datetime.now(UTC))
        self.births |= dict.fromkeys(born, event)
        self.deaths |= dict.fromkeys(dead, event)
        gone = set(dead)
        self.live = [key for key in self.live if key not in gone] + born


# --- what is answered


@dataclass
class Asker:
    """Asks for all rows as fast as it can, whatever the process goes through, and keeps each answer that differs."""

    port: int
    ops_port: int
    bodies: set[bytes] = field(default_factory=set)
    snapshots: dict[str, str] = field(default_factory=dict)  # as-of point: the snapshot that it stands for
    answers: int = 0

    def ask(self, stop: threading.Event) -> None:
        """Ask until told to stop; while nobody answers, ask again."""
        while not stop.wait(0.02):
            try:
                with closing(HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
                    while not stop.wait(0.01):
                        self._ask_once(connection)
            except (OSError, HTTPException):
                continue

    def _ask_once(self, connection: HTTPConnection) -> None:
        connection.request("POST", "/v1/indexes/docs/search", SEARCH, {"content-type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            return
        self.answers += 1
        self.bodies.add(body)
        if answer.headers["vectorindex-as-of"] not in self.snapshots:
            proof = read_status(self.ops_port).proof
            self.snapshots[proof.as_of] = proof.snapshot


def read_status(port: int) -> report.Status:
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/v1/status")
        return msgspec.json.decode(connection.getresponse().read(), type=report.Status)


def includes(snapshot: str, transaction: int) -> bool:
    """Tell whether a snapshot, `xmin:xmax:in-progress`, shows what a committed transaction did."""
    low, high, running = snapshot.split(":")
    return transaction < int(high) and (transaction < int(low) or transaction not in set(map(int, filter(None, running.split(",")))))


def find_lies(asker: Asker, writer: Writer) -> list[str]:
    """Return what the answers say that was not true any more, or not yet, at their as-of points."""
    deaths, births, begun = dict(writer.deaths), dict(writer.births), set(writer.begun)
    lies = []
    for body in asker.bodies:
        answer = json.loads(body)
        at = parse_time(answer["asOf"])
        assert at is not None
        answered = [hit["id"] for hit in answer["results"]]
        risen = [key for key in answered if key in deaths and deaths[key].committed < at]
        snapshot = asker.snapshots.get(answer["asOf"])
        if snapshot is not None:
            risen += [key for key in answered if key in deaths and includes(snapshot, deaths[key].transaction)]
        lost = [key for key, birth in births.items() if birth.committed < at and key not in begun and key not in set(answered)]
        twice = [key for key, times in Counter(answered).items() if times > 1]
        for what, ids in (("dead ids", risen), ("lost ids", lost), ("ids twice", twice)):
            if ids:
                lies.append(f"as of {answer['asOf']}, generation {answer['generation']}: {what} {sorted(set(ids))[:10]}")
    return lies


# --- interruptions


@dataclass(frozen=True)
class Interruption:
    """How a rebuild was broken off, how far it had come, and whether it left a half-written file."""

    wish: str  # how the rebuild came about
    delay: float  # seconds after the rebuild began, or after the first half-written file was seen
    during: str
    partial: bool


@dataclass
class Bench:
    """A replica that is started again and again, with what happened to it."""

    settings: Settings
    database: Database
    writer: Writer
    chance: random.Random
    rebuild_seconds: float = 0.0
    latest: str = ""  # as-of point of an answer
    answers: int = 0
    interruptions: list[Interruption] = field(default_factory=list)

    def wish(self) -> None:
        """Ask for a rebuild, as the operator would: by the live file."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        document = {
            "consistency": {"periodSeconds": 1, "maxSourceDutyPercent": 100},
            "healing": {"maxChangePercent": 100, "concurrentRebuilds": 1},
            "wishes": {"rebuildRequestedAt": now},
        }
        assert self.settings.live is not None
        beside = self.settings.live.with_suffix(".new")
        beside.write_text(json.dumps(document))
        beside.replace(self.settings.live)

    @contextmanager
    def run(self) -> Iterator[tuple[Serving, Asker]]:
        """Start the replica, ask it all the time, and judge every answer when it has ended."""
        with serving(self.settings, "--drain-seconds", "0") as one:
            asker = Asker(one.search_port, one.ops_port)
            try:
                with work_beside(asker.ask):
                    yield one, asker
            except AssertionError:
                LOG.warning("the log of the replica:\n%s", "".join(one.lines[-30:]))
                raise
        self.answers += asker.answers
        assert find_lies(asker, self.writer) == []
        moments = sorted(json.loads(body)["asOf"] for body in asker.bodies)
        if moments:
            assert moments[0] > self.latest, "as-of points go on, also over a kill"
            self.latest = moments[-1]

    def assert_healed(self, one: Serving) -> None:
        """The replica proves itself again, without what the killed process left, and without its sessions."""
        wait_until("proven", lambda: one.get("/readyz")[0] == 200 and read_status(one.ops_port).proven)
        mine = f"{PARTIAL}{one.process.pid}"
        assert [path.name for path in self.settings.data.glob(f"{PARTIAL}*") if path.name != mine] == []
        wait_until("no session left idle in a transaction", lambda: not idle_sessions(self.database))

    def measure(self) -> None:
        """Make one rebuild that nobody disturbs, to know how long it takes."""
        with self.run() as (one, _):
            self.assert_healed(one)
            self.wish()
            wait_until("a rebuild", lambda: bool(one.find(SWITCHED)))
            (began, ended) = (parse_time(one.find(message)[-1]["time"]) for message in (BUILDING, SWITCHED))
            assert began is not None
            assert ended is not None
            self.rebuild_seconds = (ended - began).total_seconds()

    def interrupt(self, *, in_saving: bool) -> None:
        """Have the index built anew, and kill the process on the way; in half of the cases it had a proven index before."""
        wish = "first build" if in_saving or self.chance.random() < 0.2 else "wish"
        if wish == "first build":  # as on a new node
            shutil.rmtree(self.settings.data)
            self.settings.data.mkdir()
        with self.run() as (one, asker):
            if wish == "wish":
                self.assert_healed(one)
                before = len(one.find(BUILDING))
                self.wish()
                wait_until("a rebuild", lambda: len(one.find(BUILDING)) > before, pause=0.002)
            elif in_saving:
                wait_until("a half-written file", lambda: any(self.settings.data.glob(f"{PARTIAL}*")), pause=0.0)
            else:
                wait_until("a load", lambda: bool(one.find(BUILDING)), pause=0.002)
            at_once = in_saving and self.chance.random() < 0.5  # the file is still there, most likely
            delay = 0.0 if at_once else self.chance.uniform(0, 0.02 if in_saving else 1.3 * self.rebuild_seconds)
            time.sleep(delay)  # to strike at any point of what goes on
            one.process.kill()
            one.process.wait()
        ended = len(one.find(SWITCHED)) == len(one.find(BUILDING)) if wish == "wish" else asker.answers > 0
        during = "saving" if in_saving else "after the switch" if ended else "building"
        self.interruptions.append(Interruption(wish, delay, during, any(self.settings.data.glob(f"{PARTIAL}*"))))
        LOG.warning("%s", self.interruptions[-1])


def idle_sessions(database: Database) -> list[str]:
    """Return our sessions that are idle in a transaction, but for the holder of a slot, who has to be."""
    return [one.query for one in database.idle_in_transaction() if " slot" not in one.application]


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    seed = secrets.randbelow(2**32)
    LOG.warning("seed %d", seed)  # pytest shows the log beside a failure
    chance = random.Random(seed)
    writer = Writer(database, random.Random(chance.random()))
    writer.fill()
    source = {
        "postgres": database.as_source(),
        "table": {"name": "documents"},
        "columns": {"id": "id", "vector": "vector"},
        "tombstone": {"column": "deleted"},
    }
    spec = {"source": source, "index": {"dimension": DIMENSION, "metric": "Cosine", "type": "Flat"}}
    manifest = {"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "metadata": {"name": "docs"}, "spec": spec}
    settings = replace(write_settings(tmp_path, manifest, database.create_reader()), live=tmp_path / "live.json")
    return Bench(settings, database, writer, chance)


@pytest.mark.parametrize("times", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_no_dead_row_is_answered_whenever_a_rebuild_is_killed(bench: Bench, times: int) -> None:
    """Rows are tombstoned and deleted all the time; each answer is checked over its own as-of point."""
    bench.wish()
    with work_beside(bench.writer.write):
        bench.measure()
        for number in range(times):
            bench.interrupt(in_saving=number % 5 == 4)
        for _ in range(20):  # a file is half written for so short a time that chance may have missed it
            if any(one.partial for one in bench.interruptions):
                break
            bench.interrupt(in_saving=True)
        with bench.run() as (one, _):
            bench.assert_healed(one)
    bench.database.expect_no_backends()
    assert bench.answers > 10 * times, "somebody must have asked"
    assert len(bench.writer.deaths) > 10 * times, "and rows must have died"
    during = Counter(one.during for one in bench.interruptions)
    assert during["building"] >= times // 5, during
    assert any(one.partial for one in bench.interruptions), "some were killed over a half-written file"


def test_what_a_snapshot_shows_is_told_by_its_transactions() -> None:
    assert [number for number in range(8) if includes("3:7:3,5", number)] == [0, 1, 2, 4, 6]
    assert includes("3:3:", 2)
    assert not includes("3:3:", 3)


def test_an_answer_with_a_dead_a_lost_or_a_double_id_is_noticed(database: Database) -> None:
    """The judge of the test above can see."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    writer = Writer(database, random.Random(0))
    old = Event(5, now - timedelta(seconds=9))
    writer.births = dict.fromkeys((1, 2, 3), old)
    writer.deaths = {2: Event(7, now - timedelta(seconds=1)), 3: Event(8, now + timedelta(seconds=1))}
    writer.begun = {2, 3}

    def judge(ids: list[int], snapshot: str = "") -> list[str]:
        body = json.dumps({"asOf": "2026-01-01T00:00:00.000Z", "generation": 1, "results": [{"id": key, "score": 1.0} for key in ids]})
        asker = Asker(0, 0, {body.encode()}, {"2026-01-01T00:00:00.000Z": snapshot} if snapshot else {})
        return find_lies(asker, writer)

    assert judge([1]) == judge([1, 3]) == []
    assert [lie.rpartition(":")[2] for lie in judge([1, 2])] == [" dead ids [2]"]
    assert [lie.rpartition(":")[2] for lie in judge([1, 3], "9:9:")] == [" dead ids [3]"]
    assert judge([1, 3], "8:9:8") == []
    assert [lie.rpartition(":")[2] for lie in judge([3])] == [" lost ids [1]"]
    assert [lie.rpartition(":")[2] for lie in judge([1, 1])] == [" ids twice [1]"]
