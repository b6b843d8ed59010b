"""The forms in which Postgres stores and sends vectors, as arrays of bytes and back. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

_FLOAT4_OID: Final = 700


class VectorType(StrEnum):
    """The type of a vector column. The values are those that stand in a digest spec."""

    BYTEA = "bytea"  # float32, little-endian, one after the other
    VECTOR = "vector"  # of pgvector
    HALFVEC = "halfvec"  # of pgvector
    FLOAT4_ARRAY = "float4[]"


_SEND: Final = {VectorType.VECTOR: "vector_send", VectorType.HALFVEC: "halfvec_send", VectorType.FLOAT4_ARRAY: "array_send"}


@dataclass(frozen=True)
class Vectors:
    """How a vector column stores and sends vectors of one dimension."""

    type: VectorType
    schema: str  # where the type and its send function live
    dimension: int

    @property
    def send_function(self) -> str | None:
        """Return what makes the wire form of a stored vector; None where both are the same."""
        return _SEND.get(self.type)

    @property
    def header(self) -> bytes:
        """Return the bytes before the first element on the wire, as a well-formed vector has them."""
        if self.type is VectorType.BYTEA:
            return b""
        if self.type is VectorType.FLOAT4_ARRAY:  # one dimension, no NULLs, the type of elements, their number, the lowest subscript
            return b"".join(number.to_bytes(4, "big") for number in (1, 0, _FLOAT4_OID, self.dimension, 1))
        return self.dimension.to_bytes(2, "big") + bytes(2)

    @property
    def element_bytes(self) -> int:
        """Return the bytes of one element on the wire; in an array, its size comes before each."""
        return {VectorType.HALFVEC: 2, VectorType.FLOAT4_ARRAY: 8}.get(self.type, 4)

    @property
    def wire_bytes(self) -> int:
        """Return the bytes of one well-formed vector on the wire."""
        return len(self.header) + self.element_bytes * self.dimension

    def dimension_of(self, wire_bytes: int) -> str:
        """Say in words what a wire form of this many bytes holds."""
        elements, rest = divmod(wire_bytes - len(self.header), self.element_bytes)
        return f"{elements}" if rest == 0 else f"{wire_bytes} bytes, which is no whole number of float32 elements"

    def is_other_form(self, wire: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell which vectors say of themselves that they are not well-formed. `wire`: (n, wire_bytes) uint8."""
        header = np.frombuffer(self.header, np.uint8)
        other: NDArray[np.bool_] = (wire[:, : header.size] != header).any(axis=1)
        if self.type is VectorType.FLOAT4_ARRAY:
            sizes = np.ascontiguousarray(wire[:, header.size :]).view(">u4")[:, ::2]
            other |= (sizes != 4).any(axis=1)
        return other

    def decode(self, wire: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the elements, (n, d) float32. `wire`: (n, wire_bytes) uint8; what is not well-formed gives numbers without meaning."""
        content = wire[:, len(self.header) :]
        if self.type is VectorType.BYTEA:
            return content.copy().view("<f4").astype(np.float32, copy=False)
        if self.type is VectorType.HALFVEC:
            return np.ascontiguousarray(content).view(">f2").astype(np.float32)
        elements = np.ascontiguousarray(content).view(">f4")
        return elements[:, 1::2].astype(np.float32) if self.type is VectorType.FLOAT4_ARRAY else elements.astype(np.float32)

    def has_null_elements(self, wire: bytes) -> bool:
        """Tell whether a wire form is one of the right dimension, but some of its elements are NULL."""
        if self.type is not VectorType.FLOAT4_ARRAY or len(wire) < len(self.header):
            return False
        without_flag = wire[:4] + bytes(4) + wire[8 : len(self.header)]
        return without_flag == self.header and int.from_bytes(wire[4:8], "big") == 1
