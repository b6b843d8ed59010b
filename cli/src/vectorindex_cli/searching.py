"""A search from the command line: the vector as people have it, the replica that is asked, and the answer. Pure."""

import ast
import json
import math
import struct
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from vectorindex_cli.errors import CliError, UsageError
from vectorindex_cli.render import Cell, Painter, printable
from vectorindex_cli.resource import Json, Member, VectorIndex, format_age, parse_time

_NPY: Final = b"\x93NUMPY"
_TYPES: Final = {"<f4": "<f", "<f8": "<d", ">f4": ">f", ">f8": ">d"}
_TELLING: Final = ("Serving", "Repairing", "Held", "Unproven")  # that have something to search, the best first


class Hit(Struct, frozen=True):
    """One row of an answer."""

    id: int | str
    score: float


class Answer(Struct, frozen=True, rename="camel"):
    """What a replica answers to one vector."""

    generation: int
    as_of: str
    proven: bool
    results: list[Hit]


class Problem(Struct, frozen=True):
    """Why a replica answers nothing."""

    title: str = ""
    detail: str = ""


def parse_vector(content: bytes, name: str) -> list[float]:
    """Return the numbers in a JSON list, in a JSON object's `vector`, or in a NumPy file of one vector; `name` is for errors."""
    vector = _parse_npy(content, name) if content.startswith(_NPY) else _parse_json(content, name)
    if not vector:
        raise UsageError(f"{name} holds no number")
    if not all(math.isfinite(number) for number in vector):
        raise UsageError(f"{name} holds NaN or Infinity")
    return vector


def _parse_json(content: bytes, name: str) -> list[float]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is neither JSON nor a NumPy file") from error
    vector = document.get("vector") if isinstance(document, dict) else document
    if not isinstance(vector, list) or not all(isinstance(number, int | float) and not isinstance(number, bool) for number in vector):
        raise UsageError(f"{name}: expected a list of numbers, such as [0.1, 0.2]")
    try:
        return [float(number) for number in vector]
    except OverflowError as error:
        raise UsageError(f"{name} holds a number that is too large") from error


def _parse_npy(content: bytes, name: str) -> list[float]:
    """Read what `numpy.save` writes: magic, version, length of the header, header, numbers."""
    try:
        width = 2 if content[6] == 1 else 4
        start = 8 + width + int.from_bytes(content[8 : 8 + width], "little")
        header: dict[str, Any] = ast.literal_eval(content[8 + width : start].decode())
        rows, longest = math.prod(header["shape"]), max(header["shape"], default=0)
        numbers = [number for (number,) in struct.iter_unpack(_TYPES[header["descr"]], content[start:])]
    except (IndexError, KeyError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError, struct.error) as error:
        raise UsageError(f"{name}: expected a NumPy file of float32 or float64") from error
    if rows != len(numbers) or longest != len(numbers):
        raise UsageError(f"{name}: expected one vector, got an array of shape {header['shape']}")
    return numbers


def choose_member(index: VectorIndex, wanted: str | None) -> Member:
    """Return the replica to ask: the one that is wanted, or the first that serves."""
    members = index.status.members
    if wanted is not None:
        found = next((member for member in members if member.pod == wanted), None)
        if found is None:
            raise UsageError(f"VectorIndex {index} has no replica {wanted}; it has: {', '.join(one.pod for one in members) or 'none'}")
        return found
    ready = [member for member in members if member.state in _TELLING and member.rows is not None]
    if not ready:
        raise CliError(f"VectorIndex {index}: no replica serves; `kubectl vectorindex status {index.arguments}` tells why")
    return min(ready, key=lambda member: _TELLING.index(member.state))


def build_request(index: VectorIndex, vector: list[float], k: int) -> Json:
    """Return the body of the search; raise UsageError where the vector is of another length than those of the index."""
    dimension = index.spec.index.dimension
    if dimension and len(vector) != dimension:
        raise UsageError(f"VectorIndex {index}: expected a vector of {dimension} numbers, got {len(vector)}")
    return {"vector": vector, "k": k}


def parse_answer(status: int, body: bytes, pod: str) -> Answer:
    """Return the typed answer; raise CliError with what the replica says against it."""
    if status != 200:
        try:
            problem = msgspec.json.decode(body, type=Problem)
        except msgspec.DecodeError:
            problem = Problem()
        why = problem.detail or problem.title or "no reason given"
        raise CliError(f"{pod} answers with {status}: {printable(why)}")
    try:
        return msgspec.json.decode(body, type=Answer)
    except msgspec.DecodeError as error:
        raise CliError(f"{pod} gives an answer that this version does not understand: {error}") from error


def render_answer(answer: Answer, pod: str, metric: str, now: datetime, painter: Painter) -> str:
    """Return the rows found, and what the answer is worth."""
    head = "DISTANCE" if metric == "L2" else "SCORE"
    rows = [(Cell(str(hit.id)), Cell(f"{hit.score:.6f}")) for hit in answer.results]
    moment = parse_time(answer.as_of)
    age = f" ({format_age(now - moment)} ago)" if moment else ""
    worth = painter.paint("proven", 32) if answer.proven else painter.paint("not proven", 33)
    told = f"Answer of {pod}: {worth}, as of {printable(answer.as_of)}{age}, generation {answer.generation}"
    return "\n".join([*(painter.table(("ID", head), rows) if rows else ["  no row is live"]), told])


def build_answer(answer: Answer, pod: str) -> Json:
    """Return the answer for programs, with the replica that gave it."""
    return {"pod": pod, **msgspec.to_builtins(answer)}
