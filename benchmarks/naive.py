"""The limits and the naive ways in plain SQL and Python, as somebody would write them who does not have the indexer."""

import hashlib
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.product import expect
from benchmarks.server import Server

_LIVE = f"model = '{data.MODEL}' AND NOT deleted"


def count_by_scan(server: Server, table: str) -> None:
    """Count all rows by reading the table, on a connection of its own."""
    with server.connect() as connection:
        _forbid_indexes(connection)
        expect(connection.execute(_sql(f"SELECT count(*) FROM {table}")).fetchone() is not None, "nothing was counted")  # noqa: S608


def compare_md5(server: Server, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
    """Ask for the md5 of each live row, and compare it with our own. Raise AssertionError when one differs."""
    with server.connect() as connection, connection.cursor(binary=True) as cursor:
        theirs = cursor.execute(_sql(f"SELECT id, md5(vector) FROM {data.PLAIN} WHERE {_LIVE} ORDER BY id")).fetchall()  # noqa: S608
    ours = [(row_id, hashlib.md5(vector).hexdigest()) for row_id, vector in zip(ids.tolist(), vectors, strict=True)]  # noqa: S324
    expect(theirs == ours, "md5 of the same rows differs")


def sum_md5(server: Server, rows: int) -> None:
    """Have Postgres take the md5 of each live row and add them up."""
    summed = "sum(('x' || left(md5(vector), 16))::bit(64)::bigint)"
    with server.connect() as connection:
        found = connection.execute(_sql(f"SELECT count(*), {summed} FROM {data.PLAIN} WHERE {_LIVE}")).fetchone()  # noqa: S608
    expect(found is not None and found[0] == rows, "md5 was not taken of every row")


def _forbid_indexes(connection: psycopg.Connection[Any]) -> None:
    for way in ("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan"):
        connection.execute(_sql(f"SET {way} = off"))


def _sql(text: str) -> bytes:
    return text.encode()
