"""Gathers the blocks in which a COPY comes into portions of whole rows, in memory that is used again; what a row is, others know."""

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from vectorindex_indexer.errors import SourceError
from vectorindex_indexer.names import SourceReason

Bytes: TypeAlias = bytes | bytearray | memoryview

TRAILER: Final = b"\xff\xff"
"""What comes after the last row."""

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00"
HEADER_BYTES: Final = len(_SIGNATURE) + 8
"""What comes before the first row, at least."""


class Gathered:
    """What has come and is not parsed yet, without the header of the stream.

    It lies in one piece of memory that is used again and again, as fresh memory costs more than copying. Postgres sends each row as one
    block, and nothing promises that: a row may begin in one block and end in another.
    """

    def __init__(self, room: int, most_blocks: int) -> None:
        self._memory = memoryview(bytearray(room))
        self._filled = 0
        self._most_blocks = most_blocks
        self._has_header = True
        self.blocks: list[int] = []  # sizes of the blocks that the content is made of; the first may be the rest of one

    @property
    def content(self) -> memoryview:
        """What is there, until the next block comes. Not copied."""
        return self._memory[: self._filled]

    def drop(self, size: int) -> None:
        """Take so many bytes away from the start."""
        rest = bytes(self._memory[size : self._filled])
        self._memory[: len(rest)] = rest
        self._filled = len(rest)
        kept: list[int] = []
        left = len(rest)
        while self.blocks and left:
            kept.append(min(self.blocks.pop(), left))
            left -= kept[-1]
        self.blocks = kept[::-1]

    def fill(self, blocks: Iterable[Bytes]) -> Iterator[bool]:
        """Take blocks, and stop each time when nothing more fits, so that whole rows can be dropped; tell whether that was all."""
        memory, filled, sizes = self._memory, 0, self.blocks
        most = self._most_blocks
        for block in blocks:
            size = len(block)
            end = filled + size
            if end > len(memory) or len(sizes) >= most:
                self._filled = filled
                if self._without_header():
                    yield False
                memory = self._with_room(size)
                filled, sizes, most = self._filled, self.blocks, len(self.blocks) + self._most_blocks
                end = filled + size
            memory[filled:end] = block
            sizes.append(size)
            filled = end
        self._filled = filled
        if not self._without_header():
            raise malformed()
        yield True

    def _without_header(self) -> bool:
        """Take the header off once it has come whole; tell whether it is off."""
        if self._has_header and self._filled >= HEADER_BYTES and self._filled >= (size := header_bytes(self.content)):
            self.drop(size)
            self._has_header = False
        return not self._has_header

    def _with_room(self, size: int) -> memoryview:
        """Return the memory, in another and larger piece where a block of this size has no room."""
        if self._filled + size > len(self._memory):
            larger = memoryview(bytearray(2 * (self._filled + size)))
            larger[: self._filled] = self.content
            self._memory = larger
        return self._memory


def header_bytes(content: memoryview) -> int:
    """Return the length of the header, with its extension. Raise SourceError where there is none."""
    if len(content) < HEADER_BYTES or bytes(content[: len(_SIGNATURE)]) != _SIGNATURE:
        raise malformed()
    return HEADER_BYTES + int.from_bytes(content[HEADER_BYTES - 4 : HEADER_BYTES], "big")


def malformed() -> SourceError:
    """Return the error of a stream that is not what was asked for."""
    return SourceError(SourceReason.SOURCE_ERROR, "the rows that Postgres sent are not of the form asked for")
