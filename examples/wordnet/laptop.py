"""The two-minute start: a real Postgres with real rows and one replica, without root and without Kubernetes. Every claim is asserted.

`make try` runs it and leaves it running until Ctrl-C; `--once` ends it after the last step. All that it starts ends with it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg
import yaml
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from examples.wordnet import load
from examples.wordnet.steps.report import StepError, detail, expect, say, table, wait_until
from examples.wordnet.steps.searching import recall
from examples.wordnet.steps.upstream import Upstream

# The tests' own Postgres and the tool that damages saved indexes: what a laptop shows is what is tested.
from tests.support.damage import Damage, damage_both
from tests.support.postgres import EmbeddedPostgres, Login, find_free_port

HERE: Final = Path(__file__).resolve().parent
PERIOD_SECONDS: Final = 2
QUERIES: Final = 500
RECALL: Final = 0.995
PASSWORD: Final = "only-on-loopback"  # noqa: S105 - of a database that dies with this process
DATABASE: Final = "app"
NEW_ENTITY: Final = 999_000_001
KINDS: Final = ("missing", "ghost", "changed", "duplicate")


class Replica:
    """One `vectorindex-indexer serve`, as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.search_port, self.ops_port = find_free_port(), find_free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where to search."""
        return f"http://127.0.0.1:{self.search_port}/v1/indexes/docs/search"

    @property
    def files(self) -> list[str]:
        """Options that name its files."""
        folder = self.folder
        return ["--config", f"{folder}/vectorindex.yaml", "--credentials", f"{folder}/credentials", "--data", f"{folder}/data"]

    def start(self) -> None:
        """Start the process, its log beside its files."""
        ports = ["--host", "127.0.0.1", "--search-port", str(self.search_port), "--ops-port", str(self.ops_port), "--drain-seconds", "0"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([command(), "serve", *self.files, *ports], stdout=log, stderr=log)

    def stop(self) -> None:
        """End the process as Kubernetes would, and wait for it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def check(self) -> tuple[int, str]:
        """Run `vectorindex-indexer check` on the same files; return its exit code and what it printed."""
        done = subprocess.run([command(), "check", *self.files], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def check_when_saved(self, root: str) -> tuple[int, str]:
        """Do so once the index of this root digest is on disk."""
        manifest = self.folder / "data" / "manifest.json"
        wait_until("the repaired index to be saved", lambda: root in manifest.read_text(encoding="utf-8"), 30)
        return self.check()

    def get(self, path: str) -> bytes:
        """Ask the ops port."""
        if self._process is None or self._process.poll() is not None:
            raise StepError(f"the replica ended by itself; its log: {(self.folder / 'log').read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}{path}", timeout=5) as answer:
                content: bytes = answer.read()
                return content
        except OSError as error:
            raise StepError(f"{path}: {error}") from error

    def status(self) -> dict[str, Any]:
        """Return what it says of itself."""
        document: dict[str, Any] = json.loads(self.get("/v1/status"))
        return document

    def metrics(self) -> dict[str, float]:
        """Return its samples by name and labels, such as `vectorindex_drift_rows{kind="ghost"}`."""
        samples = {}
        for family in text_string_to_metric_families(self.get("/metrics").decode()):
            for sample in family.samples:
                labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()) if key != "index")
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def search(self, vectors: NDArray[np.float32], k: int = 10) -> tuple[NDArray[np.int64], bool]:
        """Return the ids found, (q, k), and whether the answer is proven."""
        body = json.dumps({"vectors": vectors.tolist(), "k": k}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            document = json.load(answer)
        return np.array([[hit["id"] for hit in hits] for hits in document["results"]], np.int64), document["proven"]

    def wait_until_proven(self, what: str, rows: int, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Wait until it serves and proved so many rows, calling `meanwhile` before each look; return its status."""

        def proven() -> dict[str, Any] | None:
            meanwhile()
            status = self.status()
            return status if status["ready"] and status["proven"] and status["view"]["rows"] == rows else None

        return wait_until(what, proven, 60, 0.05)


class Asker:
    """Searches for deleted rows while a replica starts, and keeps what it was told."""

    def __init__(self, replica: Replica, upstream: Upstream) -> None:
        self._replica, self._dead = replica, upstream.dead_ids()
        self._vectors = np.stack([upstream.vector_of(int(entity)) for entity in self._dead[:50]])
        self.refused = self.unproven = self.ghosts = 0

    def ask(self) -> None:
        """Search once: an answer is counted if it is wrong or unproven, a refusal if it is said (503) and not a closed port."""
        try:
            found, proven = self._replica.search(self._vectors)
        except urllib.error.HTTPError as error:
            self.refused += error.code == HTTPStatus.SERVICE_UNAVAILABLE
        except OSError:
            pass  # it does not listen yet
        else:
            self.unproven += not proven
            self.ghosts += int(np.isin(found, self._dead).sum())


def command() -> str:
    """Return the program of the installed indexer."""
    return str(Path(sys.executable).with_name("vectorindex-indexer"))


def write_files(folder: Path, host: str, port: int, login: Login) -> None:
    """Write what a replica is given: the demo's own manifest with this Postgres in it, and the credentials."""
    manifest = yaml.safe_load((HERE / "vectorindex.yaml").read_text(encoding="utf-8"))
    manifest["spec"]["source"]["postgres"] |= {"host": host, "port": port, "database": DATABASE}
    manifest["spec"]["consistency"] = {"periodSeconds": PERIOD_SECONDS}
    (folder / "vectorindex.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    credentials = folder / "credentials"
    credentials.mkdir(mode=0o700)
    for name, value in login._asdict().items():
        (credentials / name).write_text(value, encoding="utf-8")
    (folder / "data").mkdir()


# --- the steps


def serve_and_search(replica: Replica, upstream: Upstream) -> None:
    """Search for texts, and compare with exact search."""
    say("\n== 1/4  Searches, compared with exact search over the live rows")
    live, data = upstream.live(), upstream.data
    for text in ("gold", "printer"):
        row = next(row for row, lemmas in enumerate(data.lemmas) if text in lemmas.split(", ") and data.ids[row] in live.ids)
        found, _ = replica.search(data.vectors[row : row + 1], 5)
        names = dict(zip(data.ids.tolist(), data.lemmas, strict=True))
        detail(f"{text:<10} -> {'; '.join(names[entity] for entity in found[0].tolist() if entity != data.ids[row])}")
    noise = np.random.default_rng(5).standard_normal((QUERIES, live.vectors.shape[1])) * 0.02
    queries = (live.vectors[np.linspace(0, len(live.ids) - 1, QUERIES).round().astype(int)] + noise).astype(np.float32)
    found, proven = replica.search(queries)
    reached, ghosts = recall(found, live.nearest(queries, 10)), np.intersect1d(found, upstream.dead_ids())
    detail(f"{QUERIES} queries: recall@10 {reached:.4f}, tombstoned ids found: {ghosts.size}, proven: {proven}")
    expect(reached >= RECALL, f"expected recall@10 of at least {RECALL}, got {reached:.4f}")
    expect(proven and not ghosts.size, f"expected proven answers without tombstoned ids, got {ghosts[:5].tolist()}")


def follow_changes(replica: Replica, upstream: Upstream) -> None:
    """Change rows upstream and see them followed, counted as normal life."""
    say("\n== 2/4  Rows change in Postgres")
    live = upstream.live()
    vector = np.random.default_rng(3).standard_normal((live.vectors.shape[1],)).astype("<f4")
    upstream.execute("INSERT INTO embeddings (entity_id, model_name, vector) VALUES (%s, %s, %s)", NEW_ENTITY, load.MODEL, vector.tobytes())
    upstream.execute("INSERT INTO faiss_metadata (entity_id, model_name) VALUES (%s, %s)", NEW_ENTITY, load.MODEL)
    gone = live.ids[:3].tolist()
    upstream.execute("UPDATE faiss_metadata SET deleted = true WHERE entity_id = ANY(%s) AND model_name = %s", gone, load.MODEL)
    replica.wait_until_proven("the replica to follow", len(live.ids) - 2)
    found, _ = replica.search(np.concatenate([vector[None, :], live.vectors[:3]]))
    expect(found[0, 0] == NEW_ENTITY, "the inserted row is not found")
    expect(not np.isin(found, gone).any(), "a tombstoned row is still found")
    metrics = replica.metrics()
    followed = {kind: int(metrics[f'vectorindex_synchronised_rows_total{{kind="{kind}"}}']) for kind in ("inserted", "updated", "deleted")}
    expect(
        followed == {"inserted": 1, "updated": 0, "deleted": 3}, f"expected 1 inserted and 3 deleted rows to be followed, got {followed}"
    )
    detail("1 inserted, 3 tombstoned: followed and proven; counted as synchronised, not as drift")


def heal(replica: Replica, upstream: Upstream) -> Damage:
    """Damage the saved index so that no checksum tells, and see it found, repaired and proven before it is served."""
    say("\n== 3/4  The saved index is wrong, all its checksums are right")
    live, dead = upstream.live(), upstream.dead_ids()
    replica.stop()
    done = damage_both(replica.folder / "data", missing=20, changed=10, ghosts=dead[:5].tolist())
    code, _ = replica.check()
    expect(code == 1, f"expected `vectorindex-indexer check` to exit with 1 (drift), got {code}")
    detail("`vectorindex-indexer check` exits with 1: drift")
    asker = Asker(replica, upstream)
    replica.start()
    status = replica.wait_until_proven("the replica to repair itself", len(live.ids), asker.ask)
    damage = {kind: len(getattr(done, kind)) for kind in KINDS}
    repair = status["repairs"][0] if status["repairs"] else {"drift": None}
    expect(repair["drift"] == damage, f"expected drift {damage}, the replica tells {repair['drift']}")
    asker.ask()
    expect(asker.refused > 0, "expected searches to be refused (503) until the index is proven")
    expect(not asker.unproven, f"{asker.unproven} searches were answered from an index that was not proven")
    expect(not asker.ghosts, "a deleted row came back")
    detail(
        f"{', '.join(f'{rows} {kind}' for kind, rows in damage.items() if rows)}: found before serving, repaired, compared again, proven"
    )
    detail(f"meanwhile {asker.refused} searches were refused (503), 0 answered from the wrong index")
    code, said = replica.check_when_saved(status["proof"]["rootDigest"])
    expect(code == 0, f"expected `vectorindex-indexer check` to exit with 0 (ok), got {code}: {said}")
    detail(f"`vectorindex-indexer check` of the newly saved index exits with 0 and says:\n{said.rstrip()}")
    return done


def show_metrics(replica: Replica, done: Damage) -> None:
    """Print the metrics of the replica, and compare them with what was done to it."""
    say("\n== 4/4  What its metrics say")
    metrics = replica.metrics()
    rows = [
        (kind, int(metrics[f'vectorindex_drift_rows{{kind="{kind}"}}']), int(metrics[f'vectorindex_repaired_rows_total{{kind="{kind}"}}']))
        for kind in KINDS
    ]
    detail(table(("kind", "drift now", "repaired"), rows))
    expect([row[1:] for row in rows] == [(0, len(getattr(done, kind))) for kind in KINDS], f"the metrics don't fit what was done: {rows}")
    expect(metrics['vectorindex_check_result{result="ok"}'] == 1, "expected the last check to be ok")


# --- the whole


@contextmanager
def everything() -> Iterator[tuple[Replica, Upstream, str]]:
    """Start Postgres, load it, and start a replica; end all of it afterwards."""
    with tempfile.TemporaryDirectory(prefix="vectorindex-try-") as name, EmbeddedPostgres() as postgres:
        folder = Path(name)
        with psycopg.connect(postgres.address.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        dsn = postgres.address.conninfo(DATABASE)
        with psycopg.connect(dsn, autocommit=True) as connection:
            upstream = Upstream(connection, load.read_slice())
            counts = upstream.load(PASSWORD)
            detail(f"Postgres holds {counts.rows:,} rows of the model, {counts.tombstoned} of them tombstoned")
            write_files(folder, postgres.address.host, postgres.address.port, Login(load.READER, PASSWORD))
            replica = Replica(folder)
            replica.start()
            try:
                status = replica.wait_until_proven("the replica to be proven", counts.live)
                detail(f"the replica serves {counts.live:,} rows, proven: {status['proof']['rootDigest']}")
                yield replica, upstream, dsn
            finally:
                replica.stop()


def stay(replica: Replica, upstream: Upstream, dsn: str) -> None:
    """Tell what to try, and wait for Ctrl-C."""
    vector = json.dumps(upstream.live().vectors[0].round(4).tolist())
    query = replica.folder / "query.json"
    query.write_text(f'{{"vector": {vector}, "k": 5}}', encoding="utf-8")
    say(
        f"""
All four steps hold. It runs on; to look around:
  curl -s {replica.url} -H 'content-type: application/json' -d @{query}
  curl -s http://127.0.0.1:{replica.ops_port}/v1/status
  curl -s http://127.0.0.1:{replica.ops_port}/metrics
  psql '{dsn}'          # change rows, and watch it follow
Ctrl-C ends everything."""
    )
    signal.pause()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all steps; return the exit code."""
    parser = argparse.ArgumentParser(prog="make try", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--once", action="store_true", help="end after the last step")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        say("== A Postgres with real rows, and one replica")
        with everything() as (replica, upstream, dsn):
            serve_and_search(replica, upstream)
            follow_changes(replica, upstream)
            show_metrics(replica, heal(replica, upstream))
            if not options.once:
                stay(replica, upstream, dsn)
    except (StepError, urllib.error.URLError) as error:
        print(f"\nfailed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("ended")
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
