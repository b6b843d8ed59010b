"""Load the WordNet rows of data/ into Postgres, with tombstones and a second model, as a real application would have left them.

Connects by libpq's environment variables (PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, ...). Needs NumPy and psycopg only.
Everything that looks random here comes from hashes of the ids, so each load of the same size gives the same rows.

`live_rows` says in SQL of its own which rows an index must hold. Demo and tests compare with it, never with the product's predicate.
"""

import argparse
import csv
import hashlib
import os
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

Connection = psycopg.Connection[Any]

HERE: Final = Path(__file__).resolve().parent
DATA: Final = HERE / "data"
DIMENSION: Final = 384
MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"
OTHER_MODEL: Final = "other/model"
READER: Final = "docs_reader"
READER_PASSWORD_VARIABLE: Final = "DOCS_READER_PASSWORD"  # noqa: S105  a variable's name

TOMBSTONE_SHARE: Final = 0.05
OTHER_MODEL_SHARE: Final = 0.05
# Ids of entities that only the other model knows: no part of speech has this digit.
OTHER_ONLY_BASE: Final = 9 * 10**8


class Variant(StrEnum):
    """How the database keeps vectors and tombstones."""

    TWO_TABLES = "two-tables"
    """`vector bytea`, tombstones in `faiss_metadata`: schema.sql."""

    PGVECTOR = "pgvector"
    """`vector vector(384)`, tombstones in the same table: schema-pgvector.sql."""

    @property
    def schema_file(self) -> Path:
        """Return the SQL file that makes the tables."""
        return HERE / {"two-tables": "schema.sql", "pgvector": "schema-pgvector.sql"}[self.value]

    @property
    def tables(self) -> tuple[str, ...]:
        """Return the names of the tables, all in schema public."""
        return {"two-tables": ("embeddings", "faiss_metadata"), "pgvector": ("embeddings",)}[self.value]


class LoadError(Exception):
    """Nothing was loaded, for a reason the caller can put right."""


@dataclass(frozen=True)
class Slice:
    """The rows of data/. `vectors`: (n, 384) float32, C-contiguous, unit length within half precision; row i belongs to `ids[i]`."""

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    lemmas: tuple[str, ...]
    glosses: tuple[str, ...]

    def text(self, row: int) -> str:
        """Return the text whose embedding is `vectors[row]`."""
        return f"{self.lemmas[row]}: {self.glosses[row]}"


class Embedding(NamedTuple):
    """One row of table embeddings; `row` is the row of the slice whose vector it has."""

    entity_id: int
    model: str
    row: int
    text: str


class Metadata(NamedTuple):
    """One row of table faiss_metadata."""

    entity_id: int
    model: str
    deleted: bool


@dataclass(frozen=True)
class Plan:
    """What is going to be in the tables."""

    embeddings: tuple[Embedding, ...]
    metadata: tuple[Metadata, ...]
    dead: frozenset[tuple[int, str]]
    """(entity id, model) of each tombstone."""


class Counts(NamedTuple):
    """What was loaded."""

    rows: int
    """Rows of our model."""
    tombstoned: int
    """Those of them that are dead."""
    other_model_rows: int
    """Rows of the other model."""
    dead_here_live_there: int
    """Entities that are dead for our model and live for the other one."""

    @property
    def live(self) -> int:
        """Rows that an index must hold."""
        return self.rows - self.tombstoned


def read_slice(folder: Path = DATA) -> Slice:
    """Return the rows kept in `folder`. Raise LoadError when a file is missing or the two files don't fit each other."""
    try:
        vectors = np.load(folder / "vectors.f16.npy", allow_pickle=False)
        with (folder / "rows.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise LoadError(f"cannot read {error.filename}: {error.strerror}") from error
    if vectors.shape != (len(rows), DIMENSION):
        raise LoadError(f"{folder}: expected {len(rows)} x {DIMENSION} vectors, as rows.tsv has rows, got {vectors.shape}")
    return Slice(
        ids=np.array([int(row["entity_id"]) for row in rows], np.int64),
        vectors=np.ascontiguousarray(vectors, np.float32),
        lemmas=tuple(row["lemmas"] for row in rows),
        glosses=tuple(row["gloss"] for row in rows),
    )


def plan_rows(data: Slice, rows: int) -> Plan:
    """Return what `rows` rows of the slice, spread evenly over it, become in the tables.

    - About 5 % of our model's rows are tombstoned; every tenth of them has a second, live metadata row, which must not bring it back.
    - The other model has 5 % as many rows, each with the vector of another row. A fifth of its entities are known to it alone. The rest are
      entities of ours: every tenth that is dead for us is live for it, and every twentieth of those live for us is dead for it.

    Raise LoadError when the slice has fewer rows.
    """
    total = len(data.ids)
    if not 1 <= rows <= total:
        raise LoadError(f"rows: expected 1 to {total} (as many as the data has), got {rows}")
    chosen = [int(row) for row in np.linspace(0, total - 1, rows).round()]
    ids = [int(data.ids[row]) for row in chosen]
    by_id = dict(zip(ids, chosen, strict=True))

    dead_here = draw(ids, round(rows * TOMBSTONE_SHARE), "tombstone")
    live_here = sorted(set(ids) - set(dead_here))
    others = round(rows * OTHER_MODEL_SHARE)
    dead_here_live_there = dead_here[::10]
    shared_live = draw(live_here, max(0, others - others // 5 - len(dead_here_live_there)), "other model")
    dead_there = shared_live[::20]
    other_only = [OTHER_ONLY_BASE + 1 + number * 7 for number in range(others // 5)]

    embeddings = [Embedding(entity, MODEL, by_id[entity], data.text(by_id[entity])) for entity in ids]
    for place, entity in enumerate((*dead_here_live_there, *shared_live, *other_only)):
        row = (by_id.get(entity, chosen[place % rows]) + 1) % total
        embeddings.append(Embedding(entity, OTHER_MODEL, row, data.text(row)))

    dead = frozenset([*((entity, MODEL) for entity in dead_here), *((entity, OTHER_MODEL) for entity in dead_there)])
    metadata = [Metadata(row.entity_id, row.model, (row.entity_id, row.model) in dead) for row in embeddings]
    metadata += [Metadata(entity, MODEL, deleted=False) for entity in (*dead_here[5::10], *live_here[::100])]
    return Plan(tuple(embeddings), tuple(metadata), dead)


def draw(ids: Iterable[int], count: int, purpose: str) -> list[int]:
    """Return `count` of the ids, sorted: always the same ones for the same purpose."""

    def lot(entity: int) -> bytes:
        return hashlib.sha256(f"{purpose}:{entity}".encode()).digest()

    return sorted(sorted(ids, key=lot)[:count])


def load_rows(
    connection: Connection,
    *,
    rows: int = 10_000,
    variant: Variant = Variant.TWO_TABLES,
    replace: bool = False,
    reader_password: str | None = None,
    data: Slice | None = None,
) -> Counts:
    """Make the tables, the rows and the reader's role in one transaction, and return the counts.

    Without `reader_password` the role keeps the password it has, if any.
    Raise LoadError when a table is there already and `replace` is not set.
    """
    data = data or read_slice()
    plan = plan_rows(data, rows)
    with connection.transaction():
        if replace:
            drop_tables(connection)
        refuse_existing_tables(connection)
        connection.execute(variant.schema_file.read_bytes())
        copy_embeddings(connection, variant, data, plan)
        if variant is Variant.TWO_TABLES:
            copy_metadata(connection, plan.metadata)
        if reader_password is not None:
            set_reader_password(connection, reader_password)
    connection.execute("ANALYZE public.embeddings")
    if not connection.autocommit:
        connection.commit()
    return count_rows(plan)


def count_rows(plan: Plan) -> Counts:
    """Return the counts of a plan."""
    ours = [row.entity_id for row in plan.embeddings if row.model == MODEL]
    theirs = {row.entity_id for row in plan.embeddings if row.model == OTHER_MODEL}
    dead_here = {entity for entity, model in plan.dead if model == MODEL}
    dead_there = {entity for entity, model in plan.dead if model == OTHER_MODEL}
    return Counts(len(ours), len(dead_here), len(theirs), len((dead_here & theirs) - dead_there))


def drop_tables(connection: Connection) -> None:
    """Drop the tables of either variant, if they are there."""
    for table in Variant.TWO_TABLES.tables:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS public.{}").format(sql.Identifier(table)))


def refuse_existing_tables(connection: Connection) -> None:
    """Raise LoadError when one of the tables is there."""
    for table in Variant.TWO_TABLES.tables:
        found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [f"public.{table}"]).fetchone()
        if found and found[0]:
            raise LoadError(f"table public.{table} is there already and nothing was changed: give --replace to drop it and load anew")


def copy_embeddings(connection: Connection, variant: Variant, data: Slice, plan: Plan) -> None:
    """Write table embeddings by binary COPY."""
    columns = ["entity_id", "model_name", "vector", "text"]
    types = ["int8", "text", "bytea", "text"]  # bytes go out as they are, so this is right for a vector column, too
    if variant is Variant.PGVECTOR:
        columns.append("deleted")
        types.append("bool")
    statement = sql.SQL("COPY public.embeddings ({}) FROM STDIN (FORMAT binary)").format(sql.SQL(", ").join(map(sql.Identifier, columns)))
    with connection.cursor().copy(statement) as copy:
        copy.set_types(types)
        for row in plan.embeddings:
            fields = [row.entity_id, row.model, pack_vector(data.vectors[row.row], variant), row.text]
            if variant is Variant.PGVECTOR:
                fields.append((row.entity_id, row.model) in plan.dead)
            copy.write_row(fields)


def copy_metadata(connection: Connection, metadata: Sequence[Metadata]) -> None:
    """Write table faiss_metadata by binary COPY."""
    with connection.cursor().copy("COPY public.faiss_metadata (entity_id, model_name, deleted) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int8", "text", "bool"])
        for row in metadata:
            copy.write_row(row)


def pack_vector(vector: NDArray[np.float32], variant: Variant) -> bytes:
    """Return the bytes of one vector as the column takes them: little-endian floats, or pgvector's own form."""
    match variant:
        case Variant.TWO_TABLES:
            return vector.astype("<f4").tobytes()
        case Variant.PGVECTOR:
            return struct.pack(">HH", len(vector), 0) + vector.astype(">f4").tobytes()


def set_reader_password(connection: Connection, password: str) -> None:
    """Set the password of docs_reader; only its SCRAM verifier travels, so the server's log can't show the password."""
    verifier = connection.pgconn.encrypt_password(password.encode(), READER.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(READER), sql.Literal(verifier)))


def live_rows(
    connection: Connection, *, variant: Variant = Variant.TWO_TABLES, model: str = MODEL
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return ids, ascending, and (n, 384) float32 vectors of the rows an index of `model` must hold."""
    match variant:
        case Variant.TWO_TABLES:
            statement = """
                SELECT entity_id, vector
                FROM public.embeddings
                WHERE model_name = %(model)s AND entity_id IN (
                    SELECT entity_id FROM public.faiss_metadata
                    WHERE model_name = %(model)s
                    GROUP BY entity_id
                    HAVING bool_and(deleted IS FALSE)
                )
                ORDER BY entity_id
            """
            header, dtype = 0, "<f4"
        case Variant.PGVECTOR:
            statement = """
                SELECT entity_id, vector_send(vector)
                FROM public.embeddings
                WHERE model_name = %(model)s AND NOT deleted
                ORDER BY entity_id
            """
            header, dtype = 4, ">f4"
    with connection.transaction(), connection.cursor(binary=True) as cursor:
        rows = cursor.execute(statement, {"model": model}).fetchall()
    ids = np.array([entity for entity, _ in rows], np.int64)
    vectors = np.frombuffer(b"".join(vector[header:] for _, vector in rows), dtype).astype(np.float32)
    return ids, vectors.reshape(len(rows), DIMENSION)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"The database comes from PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE; the password of role {READER} from "
        f"--reader-password-file or {READER_PASSWORD_VARIABLE}.",
    )
    parser.add_argument("--rows", type=int, default=10_000, help="how many rows of our model (default: %(default)s)")
    parser.add_argument(
        "--variant", type=Variant, choices=list(Variant), default=Variant.TWO_TABLES, help="which schema (default: %(default)s)"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of vectors.f16.npy and rows.tsv (default: data/ beside this file)")
    parser.add_argument("--replace", action="store_true", help="drop the tables first, if they are there")
    parser.add_argument("--reader-password-file", type=Path, help=f"file with the password of role {READER}")
    return parser.parse_args(arguments)


def read_reader_password(file: Path | None) -> str | None:
    """Return the reader's password from the file, else from the environment, else None."""
    if file is None:
        return os.environ.get(READER_PASSWORD_VARIABLE) or None
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise LoadError(f"cannot read {file}: {error.strerror}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the rows, print the counts and return the exit code."""
    options = parse_arguments(arguments)
    try:
        password = read_reader_password(options.reader_password_file)
        data = read_slice(options.data)
        with psycopg.connect(connect_timeout=10, application_name="wordnet-load") as connection:
            counts = load_rows(
                connection, rows=options.rows, variant=options.variant, replace=options.replace, reader_password=password, data=data
            )
    except (LoadError, psycopg.Error) as error:
        print(f"load: {error}".rstrip(), file=sys.stderr)
        return 1
    print(f"{MODEL}: {counts.rows:,} rows, {counts.live:,} live, {counts.tombstoned:,} tombstoned")
    print(f"{OTHER_MODEL}: {counts.other_model_rows:,} rows; {counts.dead_here_live_there:,} entities are live for it and tombstoned above")
    if password is None:
        print(f"role {READER} has no new password: none was given")
    return 0


if __name__ == "__main__":
    sys.exit(main())
