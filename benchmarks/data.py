"""The rows that are measured: made anew from a seed, the same at every size, and put into Postgres by COPY.

Vectors are clustered as text embeddings are: unit vectors of 384 dimensions around 200 centres, which lie, as the rows around them do, in a
space of 12 dimensions, with a little noise in all 384. They are made up: recall on them says nothing about recall on yours.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

DIMENSION: Final = 384
CLUSTERS: Final = 200
LATENT: Final = 12  # dimensions in which centres and rows differ
SPREAD: Final = 0.35  # of the rows of a cluster, where centres spread by 1
NOISE: Final = 0.01  # in each dimension
DEAD_SHARE: Final = 0.05
MODEL: Final = "bench"
SEED: Final = 20_240_229
VERSION: Final = 2  # of this module: other rows need another number, so that kept tables are filled anew

CHUNK_ROWS: Final = 10_000  # made from a seed of its own, so that small tables hold the first rows of large ones
FIRST_ID: Final = 1_000_003
ID_STEP: Final = 3  # on average: ids have gaps

PLAIN: Final = "embeddings"
DIGESTED: Final = "embeddings_digested"

_COLUMNS = "id bigint PRIMARY KEY, vector bytea NOT NULL, model text NOT NULL, deleted boolean NOT NULL"
_DIGEST = "d{} bigint GENERATED ALWAYS AS (('x' || encode(substr(sha256(int8send(id) || vector), {}, 8), 'hex'))::bit(64)::bigint) STORED"

CREATE: Final = {
    PLAIN: f"CREATE TABLE {PLAIN} ({_COLUMNS})",
    DIGESTED: f"CREATE TABLE {DIGESTED} ({_COLUMNS}, {_DIGEST.format(1, 1)}, {_DIGEST.format(2, 9)})",
}
INDEXES: Final = {
    PLAIN: (),
    DIGESTED: (f"CREATE INDEX ON {DIGESTED} (model, id) INCLUDE (d1, d2) WHERE deleted IS FALSE",),
}


class Chunk:
    """Rows that belong together: `ids` (n,) int64 ascending, `vectors` (n, 384) float32, `deleted` (n,) bool."""

    def __init__(self, ids: NDArray[np.int64], vectors: NDArray[np.float32], deleted: NDArray[np.bool_]) -> None:
        self.ids = ids
        self.vectors = vectors
        self.deleted = deleted


def make_chunks(rows: int) -> Iterator[Chunk]:
    """Make the first `rows` rows, piece by piece."""
    rng = np.random.default_rng(SEED)
    centres = rng.standard_normal((CLUSTERS, LATENT), np.float32)
    basis = np.linalg.qr(rng.standard_normal((DIMENSION, LATENT)))[0].T.astype(np.float32)
    for number, start in enumerate(range(0, rows, CHUNK_ROWS)):
        yield _make_chunk(number, min(CHUNK_ROWS, rows - start), centres, basis)


def _make_chunk(number: int, wanted: int, centres: NDArray[np.float32], basis: NDArray[np.float32]) -> Chunk:
    rng = np.random.default_rng((SEED, number))
    latent = centres[rng.integers(CLUSTERS, size=CHUNK_ROWS)] + SPREAD * rng.standard_normal((CHUNK_ROWS, LATENT), np.float32)
    ids = FIRST_ID + ID_STEP * np.arange(number * CHUNK_ROWS, (number + 1) * CHUNK_ROWS) + rng.integers(ID_STEP, size=CHUNK_ROWS)
    deleted = rng.random(CHUNK_ROWS) < DEAD_SHARE
    vectors = latent @ basis + np.float32(NOISE) * rng.standard_normal((CHUNK_ROWS, DIMENSION), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Chunk(ids[:wanted], vectors[:wanted], deleted[:wanted])


def live_rows(rows: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids and vectors of the rows that are not deleted, to hold what was loaded against."""
    chunks = [(chunk.ids[~chunk.deleted], chunk.vectors[~chunk.deleted]) for chunk in make_chunks(rows)]
    return np.concatenate([ids for ids, _ in chunks]), np.concatenate([vectors for _, vectors in chunks])


def fill(connection: psycopg.Connection[Any], table: str, rows: int, say: Callable[[str], None]) -> None:
    """Make sure that a table holds the rows: it is made anew, unless it already does."""
    name, mark = sql.Identifier(table), describe(table, rows)
    described = connection.execute("SELECT obj_description(to_regclass(%s), 'pg_class')", (table,)).fetchone()
    if described == (mark,):
        return
    say(f"filling table {table} with {rows:,} rows")
    with connection.transaction():
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
        connection.execute(CREATE[table])
        statement = sql.SQL("COPY {} (id, vector, model, deleted) FROM STDIN (FORMAT binary, FREEZE)").format(name)
        with connection.cursor().copy(statement) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\x00" + bytes(8))
            for done, chunk in enumerate(make_chunks(rows), start=1):
                copy.write(to_copy(chunk))
                if done % 20 == 0:
                    say(f"filling table {table}: {done * CHUNK_ROWS:,} rows")
            copy.write(b"\xff\xff")
    for index in INDEXES[table]:
        connection.execute(index)
    connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(name))
    connection.execute("CHECKPOINT")
    connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(name, sql.Literal(mark)))


def describe(table: str, rows: int) -> str:
    """Name what a table holds and how it was made: a kept one of another name is made anew."""
    made = "\n".join([CREATE[table], *INDEXES[table]]).encode()
    return f"{rows} rows, version {VERSION}, seed {SEED}, made by {zlib.crc32(made):08x}"


def to_copy(chunk: Chunk) -> bytes:
    """Write rows in the binary form of COPY: all are equally long, so they are written as one array."""
    model = MODEL.encode()
    row = np.dtype(
        [
            ("fields", ">i2"),
            ("id_size", ">i4"),
            ("id", ">i8"),
            ("vector_size", ">i4"),
            ("vector", "<f4", (DIMENSION,)),
            ("model_size", ">i4"),
            ("model", f"S{len(model)}"),
            ("deleted_size", ">i4"),
            ("deleted", "?"),
        ]
    )
    raw = np.empty(len(chunk.ids), row)
    raw["fields"], raw["id_size"], raw["vector_size"], raw["model_size"], raw["deleted_size"] = 4, 8, 4 * DIMENSION, len(model), 1
    raw["id"], raw["vector"], raw["model"], raw["deleted"] = chunk.ids, chunk.vectors, model, chunk.deleted
    return raw.tobytes()
