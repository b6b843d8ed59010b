"""Writers that keep a table of any form busy, each in rows of its own, with commits delayed at random."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import psycopg

from tests.support.tables import OTHER_MODEL, Key, Rule, Table

ROWS_EACH: Final = 30
LONGEST_DELAY_SECONDS: Final = 0.03  # between a statement and its commit, and again before the next one
ROLLED_BACK: Final = 0.1  # share of transactions


@contextmanager
def run_table_writers(table: Table, writers: int) -> Iterator[None]:
    """Keep so many writers going; when they have stopped, `table` knows of their rows, too. Raises what a writer died of."""
    keys = table._fresh = _Shared(iter(table._fresh))
    hands = [Writer(table.database, table.form, [], table.name, random.Random(number), keys) for number in range(writers)]
    threads = [threading.Thread(target=hand.run, daemon=True) for hand in hands]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for hand in hands:
            hand.stopping.set()
        for thread in threads:
            thread.join(timeout=30)
    for hand in hands:
        table.rows += hand.rows
        if hand.failure is not None:
            raise hand.failure
    assert not any(thread.is_alive() for thread in threads)


@dataclass
class Writer(Table):
    """One writer, and what is true of its rows as of its last commit."""

    stopping: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None
    connection: psycopg.Connection[Any] | None = None

    def run(self) -> None:
        """Write until told to stop."""
        try:
            with psycopg.connect(self.database.conninfo(application_name="test-writer"), autocommit=False) as connection:
                self.connection = connection
                while not self.stopping.is_set():
                    self._write(connection)
                    time.sleep(self.chance.random() * LONGEST_DELAY_SECONDS)
        except BaseException as error:
            self.failure = error

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        before = [replace(row) for row in self.rows]
        change, keys = self._choose()
        for key in keys:
            change(key)
        time.sleep(self.chance.random() * LONGEST_DELAY_SECONDS)  # a commit that comes late
        if self.chance.random() < ROLLED_BACK:
            connection.rollback()
            self.rows = before
        else:
            connection.commit()

    def _choose(self) -> tuple[Callable[[Key], object], list[Key]]:
        """Choose what to do, and to which rows."""
        moved = [row.key for row in self.rows if row.model == OTHER_MODEL]
        choices: list[tuple[Callable[[Key], object], list[Key]]] = [
            (self.update_vector, self.live_keys),
            (self.touch, self.live_keys),
            (self.delete, self.live_keys),
            (self.move, self.live_keys),
            (self.move_back, moved),
        ]
        if self.form.rule is not Rule.NONE:
            choices += [(self.tombstone, self.live_keys), (self.revive, self.dead)]
        if len(self.rows) < ROWS_EACH:
            choices += [(self._add_another, [""])] * 3
        change, keys = self.chance.choice([choice for choice in choices if choice[1]])
        return change, self.chance.sample(keys, min(len(keys), self.chance.randrange(1, 4)))

    def _add_another(self, _: Key) -> None:
        self.insert()

    def _run_all(self, statements: list[tuple[str, list[dict[str, Any]]]]) -> None:
        assert self.connection is not None
        self._run_on(self.connection, statements)


class _Shared:
    """Keys that several threads take from."""

    def __init__(self, keys: Iterator[Key]) -> None:
        self._keys = keys
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Key]:
        return self

    def __next__(self) -> Key:
        with self._lock:
            return next(self._keys)
