"""Writers that keep a test table busy: insert, update, tombstone, bring back, delete and move rows, with commits delayed at random."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import psycopg

from examples.wordnet.load import DIMENSION, MODEL, Variant
from tests.support.background import work_beside
from tests.support.postgres import WordnetDatabase

FIRST_OWN_ID = 400_000_000  # above the data's own ids, so that tests can plant faults in rows nobody writes
ROWS_EACH = 60
LONGEST_DELAY_SECONDS = 0.01


@contextmanager
def run_writers(database: WordnetDatabase, writers: int) -> Iterator[None]:
    """Keep so many writers going, each in rows of its own. Raises what a writer died of."""
    assert database.variant is Variant.TWO_TABLES
    with work_beside(*(partial(_write, database, number) for number in range(writers))):
        yield


def _write(database: WordnetDatabase, number: int, stop: threading.Event) -> None:
    draw = random.Random(number)
    with psycopg.connect(database.conninfo(application_name="test-writer"), autocommit=False) as connection:
        while not stop.is_set():
            key = FIRST_OWN_ID + number * ROWS_EACH + draw.randrange(ROWS_EACH)
            _change(connection, key, draw)
            time.sleep(draw.random() * LONGEST_DELAY_SECONDS)  # a commit that comes late
            connection.rollback() if draw.random() < 0.1 else connection.commit()


def _change(connection: psycopg.Connection[Any], key: int, draw: random.Random) -> None:
    vector = np.array([draw.gauss(0, 1) for _ in range(DIMENSION)], "<f4").tobytes()
    match draw.randrange(7):
        case 0 | 1:
            connection.execute(
                "INSERT INTO embeddings (entity_id, model_name, vector) VALUES (%s, %s, %s) "
                "ON CONFLICT (entity_id, model_name) DO UPDATE SET vector = excluded.vector",
                [key, MODEL, vector],
            )
            connection.execute("INSERT INTO faiss_metadata (entity_id, model_name) VALUES (%s, %s)", [key, MODEL])
        case 2:
            connection.execute("UPDATE embeddings SET vector = %s WHERE entity_id = %s AND model_name = %s", [vector, key, MODEL])
        case 3:
            connection.execute("UPDATE faiss_metadata SET deleted = true WHERE entity_id = %s AND model_name = %s", [key, MODEL])
        case 4:
            connection.execute("UPDATE faiss_metadata SET deleted = false WHERE entity_id = %s AND model_name = %s", [key, MODEL])
        case 5:
            connection.execute("DELETE FROM embeddings WHERE entity_id = %s", [key])
            connection.execute("DELETE FROM faiss_metadata WHERE entity_id = %s", [key])
        case _:
            connection.execute(
                "UPDATE embeddings SET model_name = CASE model_name WHEN %s THEN 'moved' ELSE %s END WHERE entity_id = %s AND NOT EXISTS "
                "(SELECT FROM embeddings twin WHERE twin.entity_id = embeddings.entity_id AND twin.model_name <> embeddings.model_name)",
                [MODEL, MODEL, key],
            )
