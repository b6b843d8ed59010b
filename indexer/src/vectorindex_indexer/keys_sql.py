"""The SQL of ids: how each kind is compared, ordered, given as a value and turned into bytes. Pure."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from vectorindex_indexer.keys import LONGEST_ID_BYTES, SHORTENED_CHARACTERS, IdKind, Ids, value_at, widths

Column = sa.ColumnElement[Any]
Clause = sa.ColumnElement[bool]
Within = Callable[[Column], Clause]
"""Narrows a read to some ids: makes a clause of an id column, that of the table or that of the metadata."""

_TYPES: Final[dict[IdKind, type[TypeEngine[Any]]]] = {IdKind.INTEGER: sa.BigInteger, IdKind.UUID: sa.Uuid, IdKind.TEXT: sa.Text}


@dataclass(frozen=True)
class KeySql:
    """How ids of one source are spoken of. Texts are ordered by their bytes; `collate` says that their column is not so by itself."""

    kind: IdKind
    collate: bool = False

    # --- values

    def value(self, value: int | bytes) -> Column:
        """Bind one id."""
        return sa.literal(self._to_python(value), _TYPES[self.kind]())

    def array(self, ids: Ids) -> Column:
        """Bind ids."""
        values = [self._to_python(value_at(ids, at, self.kind)) for at in range(ids.size)]
        return sa.literal(values, postgresql.ARRAY(_TYPES[self.kind]()))

    def _to_python(self, value: int | bytes) -> int | str | uuid.UUID:
        if isinstance(value, int):
            return value
        return uuid.UUID(bytes=value) if self.kind is IdKind.UUID else value.decode()

    # --- narrowing

    def between(self, low: int | bytes | None, high: int | bytes | None) -> Within:
        """Narrow to ids from `low`, inclusive, to `high`, exclusive; None is open."""

        def within(column: Column) -> Clause:
            ordered = self.ordered(column)
            bounds = [] if low is None else [ordered >= self.value(low)]
            bounds += [] if high is None else [ordered < self.value(high)]
            return sa.and_(sa.true(), *bounds)

        return within

    def any_of(self, ids: Ids) -> Within:
        """Narrow to the given ids. A shortened one stands for all that it may have been made from."""
        whole, shortened = _split(ids, self.kind)
        given = self.array(whole)
        if not shortened.size:
            return lambda column: column == sa.any_(given)
        starts = self.array(shortened)

        def within(column: Column) -> Clause:
            start = sa.func.left(column, sa.literal_column(str(SHORTENED_CHARACTERS)))
            return sa.or_(column == sa.any_(given), sa.and_(_is_long(column), start == sa.any_(starts)))

        return within

    # --- expressions

    def ordered(self, column: Column) -> Column:
        """Make the expression of a column by which ids are compared and ordered."""
        return sa.collate(column, "C") if self.collate else column

    def whole(self, column: Column) -> Column:
        """Make the expression of a column that is sent: integers of all widths in the same form."""
        return bigint(column) if self.kind is IdKind.INTEGER else column

    def short(self, column: Column) -> Column:
        """Make the same expression, with texts that are too long cut to what `keys.shorten_id` leaves of them."""
        if self.kind is not IdKind.TEXT:
            return self.whole(column)
        cut = sa.func.left(column, sa.literal_column(str(SHORTENED_CHARACTERS)))
        return sa.case((_is_long(column), cut), else_=column)

    def bytes(self, column: Column) -> Column:
        """Make the key bytes of a row digest."""
        if self.kind is IdKind.INTEGER:
            return sa.func.int8send(bigint(column))
        if self.kind is IdKind.UUID:
            return sa.func.uuid_send(column)
        raw = sa.func.convert_to(column, sa.literal_column("'UTF8'"))
        return sa.func.int4send(sa.func.octet_length(raw)).op("||")(raw)

    def hash(self, column: Column, seed: Column) -> Column:
        """Hash an id to 64 bits."""
        if self.kind is IdKind.INTEGER:
            return sa.func.hashint8extended(bigint(column), seed)
        if self.kind is IdKind.UUID:
            return sa.func.uuid_hash_extended(column, seed)
        return sa.func.hashtextextended(self.ordered(column), seed)


def bigint(column: Column) -> Column:
    """Widen an integer column."""
    return sa.cast(column, sa.BigInteger)


def everywhere(_: Column) -> Clause:
    """Narrow to nothing: all ids."""
    return sa.true()


def none_of(within: Within) -> Within:
    """Narrow to the others."""
    return lambda column: sa.not_(within(column))


def _is_long(column: Column) -> Clause:
    return sa.func.octet_length(column) > sa.literal_column(str(LONGEST_ID_BYTES))


def _split(ids: Ids, kind: IdKind) -> tuple[Ids, Ids]:
    """Part ids into those that are whole and those that may have been shortened."""
    if kind is not IdKind.TEXT or ids.dtype.itemsize <= LONGEST_ID_BYTES:
        return ids, ids[:0]
    is_long = widths(ids) > LONGEST_ID_BYTES
    return ids[~is_long], ids[is_long]
