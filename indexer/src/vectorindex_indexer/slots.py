"""Limits how many loads read one database at a time, whoever does them: by slots, which are advisory locks in Postgres."""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import psycopg
from psycopg import sql

from vectorindex_indexer.connect import Connector, statement_error
from vectorindex_indexer.deadline import Deadline
from vectorindex_indexer.errors import LoadRefusedError, SourceError
from vectorindex_indexer.names import ProofReason, SourceReason

LOG = logging.getLogger(__name__)

SLOT_CLASS: Final = 0x5658_4C44
"""First key of the locks ("VXLD"); the second is the number of the slot. Locks of other classes are other programs' own."""

BEAT_SECONDS: Final = 10.0
"""How often a holder says that it lives. Postgres frees the slot of one that missed three in a row."""

LEAVE_SECONDS: Final = 5.0
"""Longest wait for Postgres to say that the slot is free again."""

_MISSED_BEATS: Final = 3
_PAUSES: Final = (0.2, 2.0)  # first and longest wait before asking again
_WHAT: Final = "slots for loads"
_TAKE: Final = sql.SQL("SELECT number FROM generate_series(1, {}) AS number WHERE pg_try_advisory_xact_lock({}, number) LIMIT 1")


@contextlib.contextmanager
def hold_slot(
    connector: Connector,
    slots: int,
    *,
    wait_seconds: float,
    hold_seconds: float,
    beat_seconds: float = BEAT_SECONDS,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold one of the database's `slots` slots while the block runs.

    Raises LoadRefusedError when none is free within `wait_seconds`, SourceError when Postgres can't be asked. `waiting` is called before
    each time it asks again; what that raises ends the wait. The lock lives in a transaction of its own, so that it ends with its holder's
    connection, also behind a pooler, and is let go after `hold_seconds` at the latest; the block itself is not ended by that. The
    transaction has no snapshot, so that it keeps nothing from being vacuumed.
    """
    connection = connector.named("slot").open()
    deadline = Deadline(connection, wait_seconds + beat_seconds)
    heart: _Heart | None = None
    try:
        with _our_errors(deadline):
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.read_only = True
            number = _wait_for_slot(connection, slots, wait_seconds, beat_seconds, waiting)
        deadline.cancel()
        deadline = Deadline(connection, hold_seconds)
        heart = _Heart(connection, deadline, beat_seconds)
        LOG.debug("holding a slot", extra={"slot": number})
        yield
    finally:
        if heart is not None:
            heart.stop()
        deadline.cancel()
        _leave(connection)


def _leave(connection: psycopg.Connection) -> None:
    """Give the slot back and close the connection. A server that doesn't answer frees the slot when it notices."""
    deadline = Deadline(connection, LEAVE_SECONDS)
    with contextlib.suppress(psycopg.Error):
        connection.rollback()
    connection.close()
    deadline.cancel()


def _wait_for_slot(
    connection: psycopg.Connection, slots: int, wait_seconds: float, beat_seconds: float, waiting: Callable[[], None]
) -> int:
    """Return the number of the slot that was taken. Never waits inside a transaction: others may need the pooler's connection."""
    end = time.monotonic() + wait_seconds
    pause, longest = _PAUSES
    while (number := _take_slot(connection, slots, beat_seconds)) is None:
        connection.rollback()
        left = end - time.monotonic()
        if left <= 0:
            raise LoadRefusedError(
                ProofReason.REBUILD_SLOT_BUSY,
                f"as many loads as allowed ({slots}) read this database already; none ended within {wait_seconds:g} s",
            )
        time.sleep(min(left, pause * random.uniform(0.8, 1.2)))  # noqa: S311 - no secret
        pause = min(2 * pause, longest)
        waiting()
    return number


def _take_slot(connection: psycopg.Connection, slots: int, beat_seconds: float) -> int | None:
    """Begin a transaction and take the first free slot; return its number, or None when there is none."""
    limits = {
        "search_path": "pg_catalog",
        "statement_timeout": int(1000 * beat_seconds),
        "idle_in_transaction_session_timeout": int(1000 * beat_seconds * _MISSED_BEATS),
    }
    for name, value in limits.items():
        connection.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value)))
    # No parameters: with them, the last result stays open in the transaction, and its snapshot with it.
    row = connection.execute(_TAKE.format(sql.Literal(slots), sql.Literal(SLOT_CLASS))).fetchone()
    return None if row is None else int(row[0])


@contextlib.contextmanager
def _our_errors(deadline: Deadline) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if deadline.is_over:
            message = f"no answer on {_WHAT} within {deadline.seconds:g} s; the connection was closed"
            raise SourceError(SourceReason.STATEMENT_CANCELLED, message, retryable=True) from None
        raise statement_error(error, _WHAT) from None


class _Heart:
    """Asks Postgres something now and then, so that the idle transaction of a living holder is told from that of a dead one."""

    def __init__(self, connection: psycopg.Connection, deadline: Deadline, beat_seconds: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._beat_seconds = beat_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="slot", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop beating. A server that doesn't answer is not waited for."""
        self._stopping.set()
        self._thread.join(1.0)
        if self._thread.is_alive():
            self._deadline.end()
            self._thread.join()

    def _beat(self) -> None:
        while not self._stopping.wait(self._beat_seconds):
            try:
                self._connection.execute("SELECT")
            except psycopg.Error:
                if not self._stopping.is_set():
                    LOG.warning("the slot of this load was lost; the load goes on")
                return
