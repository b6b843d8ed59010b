"""A replica of a test database: its files, its source, and what it believes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from examples.wordnet.load import MODEL, Variant, live_rows
from examples.wordnet.steps.report import PATIENCE
from tests.support.postgres import Login, WordnetDatabase
from vectorindex_indexer.belief import Belief, Findings, Outcome, Terms
from vectorindex_indexer.config import Settings, load_identity
from vectorindex_indexer.connect import Connector
from vectorindex_indexer.cycle import run_cycle
from vectorindex_indexer.index import encode
from vectorindex_indexer.load import load_candidate
from vectorindex_indexer.names import Result
from vectorindex_indexer.replica import Replica
from vectorindex_indexer.source import Source

Ids = NDArray[np.int64]
SECONDS = 30.0  # the longest that a test waits for anything here


def make_manifest(database: WordnetDatabase, **changes: Any) -> dict[str, Any]:
    """Return a VectorIndex of a database's rows; `changes` are dotted paths below spec, such as `index__type="Flat"`."""
    metadata = {"table": {"name": "faiss_metadata"}, "id": "entity_id", "deleted": "deleted", "model": "model_name"}
    spec: dict[str, Any] = {
        "source": {
            "postgres": database.as_source(),
            "table": {"name": "embeddings"},
            "columns": {"id": "entity_id", "vector": "vector", "model": "model_name"},
            "model": MODEL,
            "tombstone": {"metadata": metadata} if database.variant is Variant.TWO_TABLES else {"column": "deleted"},
        },
        "index": {"dimension": 384, "metric": "Cosine", "type": "Flat"},
        "consistency": {"periodSeconds": 1},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = spec
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return {"apiVersion": "vectorindex.dev/v1alpha1", "kind": "VectorIndex", "metadata": {"name": "docs"}, "spec": spec}


def write_settings(folder: Path, manifest: dict[str, Any], login: Login) -> Settings:
    """Write manifest and credentials, and return the settings of a replica that reads them."""
    credentials = folder / "credentials"
    credentials.mkdir(parents=True, exist_ok=True)
    (credentials / "username").write_text(login.username)
    (credentials / "password").write_text(login.password)
    config = folder / "vectorindex.yaml"
    config.write_text(yaml.safe_dump(manifest))
    data = folder / "data"
    data.mkdir(exist_ok=True)
    return Settings(config=config, credentials=credentials, tls=folder, data=data, host="127.0.0.1")


def make_source(settings: Settings) -> Source:
    """Return the source that a replica with these settings would use."""
    identity = load_identity(settings.config)
    connector = Connector(
        identity.source.postgres, credentials=settings.credentials, tls=settings.tls, application_name="vectorindex default/docs"
    )
    return Source(identity.source, identity.index, connector)


def load_belief(settings: Settings, source: Source) -> Belief:
    """Load a candidate and have it proven."""
    candidate = load_candidate(source, load_identity(settings.config).index, generation=1, proven_rows=0, progress=lambda *_: None)
    outcome = check(source, candidate, whole=True)
    assert outcome.findings.result is Result.OK, outcome.findings.message
    return outcome.belief


def check(source: Source, belief: Belief, *, whole: bool = False, apply: bool = True, proven_rows: int = 0, **terms: Any) -> Outcome:
    """Run one check. `terms` are further fields of `Terms`."""
    return run_cycle(source, belief, make_terms(whole=whole, apply=apply, last_proven_rows=proven_rows, **terms), lambda _: None)


def make_terms(**changes: Any) -> Terms:
    """Return the terms of an ordinary check."""
    default: dict[str, Any] = {
        "now": time.monotonic(),
        "period": 1.0,
        "content_sweep": 86400.0,
        "whole": False,
        "apply": True,
        "uid": "local-docs",
    }
    return Terms(**default | changes)


def drifted(findings: Findings) -> dict[str, list[int]]:
    """Return the drifted ids by kind, only kinds that occur."""
    kinds = {kind: getattr(findings.drift, kind).tolist() for kind in ("missing", "ghost", "changed", "duplicate")}
    return {kind: ids for kind, ids in kinds.items() if ids}


def assert_true_to(belief: Belief, database: WordnetDatabase, model: str = MODEL) -> None:
    """Compare what is served with an independent query: the same ids, and each vector finds itself with score 1."""
    with database.admin_connect() as connection:
        ids, vectors = live_rows(connection, variant=database.variant, model=model)
    indexed, _ = belief.view.live_entries()
    assert sorted(indexed.tolist()) == ids.tolist()
    for start in range(0, len(ids), 500):
        part = slice(start, start + 500)
        found, scores = belief.view.search(vectors[part], 1)
        np.testing.assert_allclose(scores[:, 0], 1.0, atol=1e-5)
        codes = encode(vectors[part], belief.view.spec.metric)
        same = found[:, 0] == ids[part]
        # Two rows may have the same vector; then either may come first.
        twins = np.array(
            [
                np.allclose(codes[row], codes[np.flatnonzero(ids[part] == found[row, 0])]) if found[row, 0] in ids[part] else False
                for row in np.flatnonzero(~same)
            ],
            bool,
        )
        assert twins.all()


# --- a whole replica


@contextmanager
def running_replica(settings: Settings) -> Iterator[Replica]:
    """Start a replica and stop it at the end."""
    replica = Replica(settings)
    replica.start()
    try:
        yield replica
    finally:
        replica.stop()


def wait_until(what: str, condition: Callable[[], bool], seconds: float = SECONDS, *, pause: float = 0.02) -> None:
    """Wait for a condition; fail with its name when it does not come true in time."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause)  # a poll with a limit
