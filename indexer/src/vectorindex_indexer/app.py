"""HTTP: parses requests, asks the replica, renders answers. Sockets, their limits and shutting down are left to `server`."""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Final, NamedTuple, NoReturn, Protocol
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from vectorindex_indexer import metrics, names, report
from vectorindex_indexer.batcher import Answer, Batcher, BusyError, NothingToSearchError, Publisher, Query
from vectorindex_indexer.config import Identity, IndexType, Metric
from vectorindex_indexer.errors import SearchError
from vectorindex_indexer.keys import IdKind, to_json
from vectorindex_indexer.openapi import MAX_BODY_BYTES, MAX_EF_SEARCH, MAX_HITS, MAX_K, MAX_NPROBE, MAX_QUERIES, build_openapi

BODY_SECONDS: Final = 10.0  # in which a body must have come
SEARCH_SECONDS: Final = 30.0  # in which a search must be answered, its waiting included
REQUESTS: Final = 1024  # at once
BODIES_BYTES: Final = 128 * 1024 * 1024  # of all bodies being read at once
RETRY_SECONDS: Final = 2

_log = logging.getLogger(__name__)


class ReplicaPort(Publisher, Protocol):
    """What HTTP needs of a replica."""

    @property
    def identity(self) -> Identity:
        """Which index it is."""

    @property
    def metrics(self) -> metrics.Metrics:
        """Where searches are counted."""

    def is_ready(self) -> bool:
        """Tell whether it may serve."""

    def is_alive(self) -> bool:
        """Tell whether the process works, whatever its data."""

    def status(self) -> report.Status:
        """Tell everything."""

    def stop_accepting(self) -> None:
        """Take note that the process is about to end."""


class Doors:
    """Whether requests are let in.

    While draining, `/readyz` already says no, so that no new client is sent here, but who comes is still served:
    endpoints take seconds to follow, and don't end the connections that clients keep.
    """

    def __init__(self, replica: ReplicaPort) -> None:
        self._replica = replica
        self._served_before = False
        self.draining = False

    def start_draining(self) -> None:
        """Say not ready from now on."""
        if not self.draining:
            self._served_before = self._replica.is_ready()
            self.draining = True
            self._replica.stop_accepting()

    def is_ready(self) -> bool:
        """Tell whether new clients may be sent here."""
        return not self.draining and self._replica.is_ready()

    def is_open(self) -> bool:
        """Tell whether a search that came in is answered."""
        return self._served_before if self.draining else self._replica.is_ready()


class SearchRequest(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Body of a search."""

    vector: list[float] | None = None
    vectors: Annotated[list[list[float]], Meta(min_length=1, max_length=MAX_QUERIES)] | None = None
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 10
    ef_search: Annotated[int, Meta(ge=1, le=MAX_EF_SEARCH)] | None = None
    nprobe: Annotated[int, Meta(ge=1, le=MAX_NPROBE)] | None = None


class BinaryReach(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What the query string of a search in binary form may say."""

    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 10
    ef_search: Annotated[int, Meta(ge=1, le=MAX_EF_SEARCH)] | None = None
    nprobe: Annotated[int, Meta(ge=1, le=MAX_NPROBE)] | None = None


class Hit(Struct, frozen=True):
    """One row found. A score beyond float32 is null: JSON knows no infinity."""

    id: int | str
    score: float


class SearchAnswer(Struct, frozen=True, rename="camel"):
    """Body of an answer: a list of hits for `vector`, a list of such lists for `vectors`."""

    generation: int
    as_of: str
    proven: bool
    results: list[Hit] | list[list[Hit]]


class Problem(Struct, frozen=True, omit_defaults=True):
    """Body of an error, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    field: str = ""


class Readiness(Struct, frozen=True):
    """Body of `/readyz`."""

    ready: bool
    state: str
    reason: str
    message: str


class _ProblemError(Exception):
    """Ends a request with a problem document."""

    def __init__(self, status: HTTPStatus, detail: str, *, field: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.headers = headers


class _Reply(NamedTuple):
    """What is sent. `headers` beside the content's length."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


_JSON: Final = (b"content-type", b"application/json")
_BINARY: Final = (b"content-type", b"application/octet-stream")
_PROBLEM: Final = (b"content-type", b"application/problem+json")
_CLOSE: Final = (b"connection", b"close")
_RETRY: Final = (b"retry-after", str(RETRY_SECONDS).encode())


class SearchApp:
    """The search port, as a bare ASGI application: what a framework adds to a request would cost as much as the search."""

    def __init__(self, replica: ReplicaPort, doors: Doors, version: str) -> None:
        self._replica = replica
        self._doors = doors
        self._metrics = replica.metrics
        self._index = replica.identity.index
        self._search_path = f"/v1/indexes/{replica.identity.name}/search"
        self._openapi = msgspec.json.encode(build_openapi(replica.identity, version))
        self._decoder = msgspec.json.Decoder(SearchRequest)
        self._batcher = Batcher(replica, render, self._metrics.searched_together)
        self._requests = 0
        self._bodies_bytes = 0

    def close(self) -> None:
        """End the search thread; call it when no request runs any more."""
        self._batcher.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"expected an HTTP request, got {scope['type']}")
        if scope["path"] == "/openapi.json":
            reply = self._describe(scope)
        else:
            reply = await self._measure(scope, receive)
        headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
        if self._doors.draining:
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _describe(self, scope: Scope) -> _Reply:
        if scope["method"] not in ("GET", "HEAD"):
            return _refuse(HTTPStatus.METHOD_NOT_ALLOWED, "only GET", headers=((b"allow", b"GET, HEAD"),))
        return _Reply(HTTPStatus.OK, [_JSON], self._openapi)

    async def _measure(self, scope: Scope, receive: Receive) -> _Reply:
        started = time.perf_counter()
        self._metrics.search_started()
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR
        self._requests += 1
        try:
            reply = await self._reply(scope, receive)
            status = reply.status
        finally:
            self._requests -= 1
            self._metrics.search_finished(status, time.perf_counter() - started)
        return reply

    async def _reply(self, scope: Scope, receive: Receive) -> _Reply:
        """Return the answer, whatever goes wrong."""
        try:
            self._check_request(scope)
            body = await self._read(scope, receive)
            query = self._parse(body) if _content_type(scope) == _JSON[1] else self._parse_binary(scope["query_string"], body)
            async with asyncio.timeout(SEARCH_SECONDS):
                answer = await self._batcher.search(query)
        except Exception as error:  # whatever it is, the client gets a document
            problem = _to_problem(error)
            if problem is None:
                _log.exception("a search failed", extra={"path": scope["path"]})
                problem = _ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the log has it")
            return _refuse(problem.status, problem.detail, field=problem.field, headers=problem.headers)
        headers = [
            _BINARY if query.binary else _JSON,
            (b"vectorindex-generation", str(answer.generation).encode()),
            (b"vectorindex-as-of", answer.as_of.encode()),
            (b"vectorindex-proven", b"true" if answer.proven else b"false"),
        ]
        return _Reply(HTTPStatus.OK, headers, answer.body)

    def _check_request(self, scope: Scope) -> None:
        """Raise for what can be told without the body."""
        if scope["path"] != self._search_path:
            raise _ProblemError(HTTPStatus.NOT_FOUND, f"not here; the search path is {self._search_path}", field="path")
        if scope["method"] != "POST":
            raise _ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, "only POST", field="method", headers=((b"allow", b"POST"),))
        if not self._doors.is_open():
            raise _ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, self._why_not_ready(), headers=(_RETRY,))
        if self._requests > REQUESTS:
            raise _ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "busy: too many requests at once", headers=(_RETRY,))
        encoding = next((value.strip().lower() for name, value in scope["headers"] if name == b"content-encoding"), b"")
        if _content_type(scope) not in (_JSON[1], _BINARY[1]):
            message = "expected application/json or application/octet-stream"
            raise _ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, field="Content-Type")
        if encoding not in (b"", b"identity"):
            raise _ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not taken", field="Content-Encoding")

    def _why_not_ready(self) -> str:
        if self._doors.draining:
            return "not ready: shutting down"
        status = self._replica.status()
        return f"not ready: {status.state}: {status.proof.message or status.source.message or status.proof.reason}"

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the whole body; raise when it is too large, too late, or there is no room for it now."""
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > MAX_BODY_BYTES:
            _raise_too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise _ProblemError(HTTPStatus.BAD_REQUEST, "the client left", field="body")
                    chunk: bytes = message.get("body", b"")
                    if chunk:
                        chunks.append(chunk)
                        size += len(chunk)
                        self._bodies_bytes += len(chunk)
                        self._check_size(size)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise _ProblemError(
                HTTPStatus.REQUEST_TIMEOUT, f"the body did not come within {BODY_SECONDS:g} s", field="body", headers=(_CLOSE,)
            ) from None
        finally:
            self._bodies_bytes -= size

    def _check_size(self, size: int) -> None:
        if size > MAX_BODY_BYTES:
            _raise_too_large()
        if self._bodies_bytes > BODIES_BYTES:
            raise _ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "busy: too many large requests at once", headers=(_RETRY, _CLOSE))

    def _parse(self, body: bytes) -> Query:
        """Return what the body asks; raise a problem that names the field."""
        try:
            request = self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise _describe(body, error) from None
        if (request.vector is None) == (request.vectors is None):
            raise _ProblemError(HTTPStatus.BAD_REQUEST, "exactly one of vector and vectors is needed", field="vector")
        self._check_reach(request)
        if request.vectors is not None and len(request.vectors) * request.k > MAX_HITS:
            raise _ProblemError(HTTPStatus.BAD_REQUEST, f"vectors times k may be {MAX_HITS} at most", field="k")
        return Query(self._to_array(request), request.k, request.ef_search, request.nprobe, single=request.vectors is None)

    def _parse_binary(self, parameters: bytes, body: bytes) -> Query:
        """Return what a search in binary form asks: float32 rows in the body, everything else in the query string."""
        published = self._replica.published
        if published is not None and published.view.id_kind is not IdKind.INTEGER:
            message = f"the binary form holds ids of 64 bits, and those of this index are of type {published.view.id_kind}"
            raise _ProblemError(HTTPStatus.BAD_REQUEST, message, field="Content-Type")
        try:
            given = parse_qsl(parameters.decode(), keep_blank_values=True, strict_parsing=bool(parameters), max_num_fields=8)
            reach = msgspec.convert(dict(given), BinaryReach, strict=False)
            if len(given) > len(dict(given)):
                raise ValueError("a name is given twice")
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            raise _describe(body, error) from None
        except ValueError:
            raise _ProblemError(HTTPStatus.BAD_REQUEST, "the query string can't be parsed", field="query") from None
        self._check_reach(reach)
        width = 4 * self._index.dimension
        if not body or len(body) % width:
            raise _ProblemError(HTTPStatus.BAD_REQUEST, f"expected rows of {width} bytes, got {len(body)} bytes", field="body")
        vectors = np.frombuffer(body, "<f4").reshape(-1, self._index.dimension).astype(np.float32)
        if len(vectors) > MAX_QUERIES or len(vectors) * reach.k > MAX_HITS:
            message = f"at most {MAX_QUERIES} vectors, and vectors times k at most {MAX_HITS}"
            raise _ProblemError(HTTPStatus.BAD_REQUEST, message, field="body")
        return Query(self._check_vectors(vectors, single=False), reach.k, reach.ef_search, reach.nprobe, binary=True)

    def _check_reach(self, request: SearchRequest | BinaryReach) -> None:
        """Refuse what an index of this type does not know, and more lists than it has."""
        index = self._index
        if request.ef_search is not None and index.type is not IndexType.HNSW:
            raise _ProblemError(HTTPStatus.BAD_REQUEST, f"only HNSW has efSearch, and this index is {index.type}", field="efSearch")
        if request.nprobe is not None and index.type is not IndexType.IVFFLAT:
            raise _ProblemError(HTTPStatus.BAD_REQUEST, f"only IVFFlat has nprobe, and this index is {index.type}", field="nprobe")
        if request.nprobe is not None and request.nprobe > index.ivf.nlist:
            raise _ProblemError(HTTPStatus.BAD_REQUEST, f"this index has {index.ivf.nlist} lists", field="nprobe")

    def _to_array(self, request: SearchRequest) -> NDArray[np.float32]:
        """Return the queries as (q, d) float32, all finite and, under Cosine, none of them zero."""
        single = request.vectors is None
        rows = [request.vector or []] if request.vectors is None else request.vectors
        for position, row in enumerate(rows):
            if len(row) != self._index.dimension:
                field = "vector" if single else f"vectors[{position}]"
                raise _ProblemError(HTTPStatus.BAD_REQUEST, f"expected {self._index.dimension} numbers, got {len(row)}", field=field)
        with np.errstate(over="ignore"):
            vectors = np.array(rows, dtype=np.float32)
        return self._check_vectors(vectors, single=single)

    def _check_vectors(self, vectors: NDArray[np.float32], *, single: bool) -> NDArray[np.float32]:
        """Return the vectors; raise a problem that names the first that can't be searched for."""
        finite = np.isfinite(vectors)
        if not finite.all():
            position, column = (int(each) for each in np.argwhere(~finite)[0])
            field = f"vector[{column}]" if single else f"vectors[{position}][{column}]"
            raise _ProblemError(HTTPStatus.BAD_REQUEST, "not a finite number of float32", field=field)
        if self._index.metric is Metric.COSINE and not (directed := vectors.any(axis=1)).all():
            field = "vector" if single else f"vectors[{int(np.argmin(directed))}]"
            raise _ProblemError(HTTPStatus.BAD_REQUEST, "a zero vector has no direction, which Cosine compares", field=field)
        return vectors


def render(query: Query, answer: Answer) -> Answer:
    """Return the answer with its body; called in the search thread, so that a large one doesn't hold up the loop."""
    if query.binary:  # all ids, then all scores, both little-endian; where an answer is short, -1 and NaN
        return replace(answer, body=answer.ids.astype("<i8").tobytes() + answer.scores.astype("<f4").tobytes())
    rows = zip(answer.ids, answer.scores.tolist(), strict=True)
    results = [_list_hits(to_json(ids, answer.id_kind), scores) for ids, scores in rows]
    document = SearchAnswer(answer.generation, answer.as_of, answer.proven, results[0] if query.single else results)
    return replace(answer, body=msgspec.json.encode(document))


def _content_type(scope: Scope) -> bytes:
    kind: bytes = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return kind.split(b";", 1)[0].strip().lower()


def _list_hits(ids: Sequence[int | str], scores: Sequence[float]) -> list[Hit]:
    """Return hits without the padding, which is known by its score: any id may be a row's."""
    return [Hit(row, score) for row, score in zip(ids, scores, strict=True) if score == score]  # noqa: PLR0124 - false for NaN only


_AT: Final = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<field>.*)`)?\Z", re.DOTALL)
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(?P<name>.*)`\Z", re.DOTALL)
_BYTE: Final = re.compile(r"invalid character \(byte (?P<offset>\d+)\)\Z")
_NOT_A_NUMBER: Final = re.compile(rb"-?(?:NaN|Infinity|nan|inf(?:inity)?)")


def _describe(body: bytes, error: Exception) -> _ProblemError:
    """Return the problem for a body that does not decode."""
    if isinstance(error, msgspec.ValidationError):
        at = _AT.match(str(error))
        problem, field = (at["problem"], at["field"] or "body") if at else (str(error), "body")
        unknown = _UNKNOWN.match(problem)
        if unknown:
            field, problem = unknown["name"][:100], "unknown field"
        return _ProblemError(HTTPStatus.BAD_REQUEST, f"{problem[:1].lower()}{problem[1:]}".replace("`", ""), field=field)
    field = _find_not_a_number(body, str(error))
    if field:
        return _ProblemError(HTTPStatus.BAD_REQUEST, "expected a finite number", field=field)
    return _ProblemError(HTTPStatus.BAD_REQUEST, f"not JSON: {error}"[:200], field="body")


def _find_not_a_number(body: bytes, message: str) -> str:
    """Return where a literal NaN or Infinity stands that ended the decoding; "" if it was something else.

    It is no JSON, so the decoder tells a byte only. With a null in its place, which is JSON but no number, it tells the field.
    """
    byte = _BYTE.search(message)
    if byte is None:
        return ""
    offset = int(byte["offset"])
    literal = next((found for start in (offset - 1, offset) if start >= 0 and (found := _NOT_A_NUMBER.match(body, start))), None)
    if literal is None:
        return ""
    try:
        msgspec.json.decode(b"".join((body[: literal.start()], b"null", body[literal.end() :])), type=SearchRequest)
    except msgspec.ValidationError as error:
        at = _AT.match(str(error))
        return (at["field"] or "") if at else ""
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    return ""


def _to_problem(error: Exception) -> _ProblemError | None:
    """Return what the client is told of an error; None for one that is a defect of ours."""
    problem: _ProblemError | None = None
    match error:
        case _ProblemError():
            problem = error
        case SearchError():
            problem = _ProblemError(HTTPStatus.BAD_REQUEST, error.message, field=error.field)
        case NothingToSearchError():
            problem = _ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {error}", headers=(_RETRY,))
        case BusyError():
            problem = _ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, f"busy: {error}", headers=(_RETRY,))
        case TimeoutError():
            problem = _ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, f"busy: not answered within {SEARCH_SECONDS:g} s", headers=(_RETRY,))
    return problem


def _raise_too_large() -> NoReturn:
    raise _ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body may have {MAX_BODY_BYTES} bytes at most", field="body", headers=(_CLOSE,)
    )


def _refuse(status: HTTPStatus, detail: str, *, field: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()) -> _Reply:
    problem = Problem(type="about:blank", title=status.phrase, status=status, detail=detail, field=field)
    return _Reply(status, [_PROBLEM, *headers], msgspec.json.encode(problem))


# --- ops port ---


def build_ops_app(replica: ReplicaPort, doors: Doors) -> Starlette:
    """Return the application of the ops port: probes, metrics, status."""

    async def livez(_: Request) -> Response:
        alive = replica.is_alive()
        return _respond({"alive": alive}, HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE)

    async def readyz(_: Request) -> Response:
        status = replica.status()
        ready = doors.is_ready()
        message = status.proof.message or status.source.message
        readiness = Readiness(ready, names.State.STOPPING if doors.draining else status.state, status.proof.reason, message)
        return _respond(readiness, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    def render_metrics(_: Request) -> Response:  # not a coroutine: Starlette runs it in a thread, as it takes milliseconds
        return Response(replica.metrics.render(), media_type=metrics.CONTENT_TYPE)

    async def status(_: Request) -> Response:
        return _respond(replica.status(), HTTPStatus.OK)

    async def refuse(_: Request, error: Exception) -> Response:
        code = HTTPStatus(error.status_code) if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
        reply = _refuse(code, code.description or code.phrase)
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        return Response(reply.body, code, headers, "application/problem+json")

    return Starlette(
        routes=[
            Route(names.LIVEZ_PATH, livez),
            Route(names.READYZ_PATH, readyz),
            Route(names.METRICS_PATH, render_metrics),
            Route(names.STATUS_PATH, status),
        ],
        exception_handlers={HTTPException: refuse, Exception: refuse},
    )


def _respond(document: object, status: HTTPStatus) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
