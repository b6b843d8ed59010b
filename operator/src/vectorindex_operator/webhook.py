"""The port to which Alertmanager posts: who may, how much at once, and a write that needs no Lease. What it means, `heal` decides.

The wish is set before the answer: whoever is told 2xx knows that it is stored, and there is no queue to lose. What could not be stored is
answered 503, which Alertmanager repeats by itself within seconds; after a 2xx it would do so at its `repeat_interval` only.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from vectorindex_operator import api, heal, metrics, names, server
from vectorindex_operator.cluster import Cluster
from vectorindex_operator.errors import ClusterError, ConflictError, NotFoundError, PayloadError, SettingsError
from vectorindex_operator.fence import Fence
from vectorindex_operator.heal import Budget, Call, Rules
from vectorindex_operator.names import HealOutcome, Key
from vectorindex_operator.settings import Webhook

log = logging.getLogger(__name__)

MAX_BYTES: Final = 1024 * 1024
READING: Final = timedelta(seconds=5)
"""How long a request may take to come in."""
STORING: Final = timedelta(seconds=4)
"""How long it may take to store its wishes; Alertmanager waits 10 s at least."""
MOST_AT_ONCE: Final = 16
SIDE_BY_SIDE: Final = 8
"""Indexes of one payload that are asked for at the same time."""
TRIES: Final = 5
"""When an index changes between being read and being written."""
SHORTEST_TOKEN: Final = 16
TLS_CHECK: Final = timedelta(seconds=5)
CALM: Final = timedelta(minutes=1)
"""Strangers at the door are told in the log this often at most."""


def serve(settings: Webhook, host: str, namespaces: tuple[str, ...]) -> AbstractContextManager[None]:
    """Answer Alertmanager until the context ends; raise SettingsError for a token or certificate that is none, OSError for a taken port."""

    @asynccontextmanager
    async def answering() -> AsyncIterator[None]:
        fence = Fence()
        fence.open_for_ever()  # any operator may be asked: a wish is guarded by the version of what it changes, and an event by its name
        async with Cluster(fence) as cluster:
            receiver = _Receiver(settings, namespaces, cluster)
            receiver.read_token()
            tls = _load_tls(settings.tls_folder) if settings.tls_folder else None
            async with _listen(receiver, host, settings.port, tls), _renewing(tls, settings.tls_folder):
                yield

    return server.beside("webhook", answering)


class _Receiver:
    """Answers requests."""

    def __init__(self, settings: Webhook, namespaces: tuple[str, ...], cluster: Cluster) -> None:
        self._token_file = settings.token_file
        self._cluster = cluster
        self._rules = Rules(
            alerts=frozenset(settings.alerts),
            namespace_label=settings.namespace_label,
            index_label=settings.index_label,
            namespaces=namespaces,
            cooldown=settings.cooldown,
        )
        self._budget = Budget(settings.budget_wishes, settings.budget_within, time.monotonic())
        self._under_way = 0
        self._told_at = float("-inf")
        self._events: set[asyncio.Task[None]] = set()

    def read_token(self) -> bytes:
        """Return the token as the Secret holds it now; raise SettingsError when that is none."""
        try:
            token = self._token_file.read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"webhook: the token can't be read: {error.strerror}") from error
        if len(token) < SHORTEST_TOKEN:
            raise SettingsError(f"webhook: expected a token of at least {SHORTEST_TOKEN} bytes, got {len(token)}")
        return token

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request, whatever it is."""
        if self._under_way >= MOST_AT_ONCE:
            return _RefusedError(503, HealOutcome.FAILED, "too many requests at once", {"Retry-After": "1"}).render()
        self._under_way += 1
        started = time.monotonic()
        try:
            return await self._answer(request)
        finally:
            self._under_way -= 1
            metrics.HEAL_SECONDS.observe(time.monotonic() - started)

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            self._check_token(request)
            alerts = heal.parse_payload(await _read_body(request))
        except _RefusedError as refused:
            return refused.render()
        except PayloadError as error:
            return _RefusedError(400, HealOutcome.MALFORMED, str(error)).render()
        calls, outcomes = heal.find_calls(alerts, self._rules, datetime.now(UTC))
        outcomes += Counter((await self._follow_all(calls)).values())
        for outcome, count in outcomes.items():
            metrics.HEAL_REQUESTS.labels(outcome).inc(count)
        told = {outcome.value: count for outcome, count in sorted(outcomes.items())}
        return web.json_response({"outcomes": told}, status=503 if outcomes[HealOutcome.FAILED] else 200)

    def _check_token(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        try:
            token = self.read_token()
        except SettingsError as error:
            log.error("no alert can be received: %s", error)
            raise _RefusedError(503, HealOutcome.FAILED, "the token can't be read") from error
        # Of digests, as the time that a comparison takes tells where lengths differ.
        same = hmac.compare_digest(*(hashlib.sha256(one).digest() for one in (token, given.strip().encode("utf-8", "surrogateescape"))))
        if not same or scheme.lower() != "bearer":
            self._tell_stranger()
            raise _RefusedError(
                401, HealOutcome.UNAUTHORIZED, "expected the bearer token", {"WWW-Authenticate": 'Bearer realm="vectorindex"'}
            )

    def _tell_stranger(self) -> None:
        now = time.monotonic()
        if now - self._told_at > CALM.total_seconds():
            self._told_at = now
            log.warning("a request to the webhook had no or a wrong token")

    async def _follow_all(self, calls: list[Call]) -> dict[Key, HealOutcome]:
        """Return what became of each call; what was not stored in time has failed."""
        outcomes = {call.key: HealOutcome.FAILED for call in calls}
        turn = asyncio.Semaphore(SIDE_BY_SIDE)

        async def follow(call: Call) -> None:
            async with turn:
                try:
                    outcomes[call.key] = await self._follow(call)
                except ClusterError as error:
                    log.warning("a wish could not be stored, Alertmanager will repeat it: index=%s cause=%s", call.key, error)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STORING.total_seconds()), asyncio.TaskGroup() as tasks:
                for call in calls:
                    tasks.create_task(follow(call))
        return outcomes

    async def _follow(self, call: Call) -> HealOutcome:
        paid = stored = False
        try:
            for _ in range(TRIES):
                live = await self._cluster.read(names.KIND, *call.key)
                outcome = heal.decide(call, heal.parse_standing(live) if live else None, self._rules, datetime.now(UTC))
                if live is None or outcome is not HealOutcome.ACCEPTED:
                    return outcome
                paid = paid or self._budget.take(time.monotonic())
                if not paid:
                    log.warning("no more wishes for now: index=%s alert=%s", call.key, call.alert)
                    return HealOutcome.THROTTLED
                try:
                    changed = await self._cluster.wish(live, names.VALIDATE_REQUESTED_AT, heal.format_wish(call.since))
                except ConflictError:
                    continue  # it changed since it was read: perhaps another operator was faster
                except NotFoundError:
                    return HealOutcome.UNMATCHED
                stored = True
                log.info("an alert asked for a check: index=%s alert=%s since=%s", call.key, call.alert, heal.format_wish(call.since))
                self._tell(changed, call)
                return HealOutcome.ACCEPTED
        finally:
            if paid and not stored:  # or an API server that refuses for a while would use up what is meant for later
                self._budget.give_back()
        raise ConflictError(f"index {call.key} changed {TRIES} times meanwhile")

    def _tell(self, live: api.Json, call: Call) -> None:
        """Post the event, without keeping anybody waiting: it is told, not stored."""

        async def post() -> None:
            try:
                await self._cluster.post_event(api.parse_vector_index(live), heal.build_event(call), datetime.now(UTC))
            except ClusterError as error:
                log.warning("an event was lost: index=%s cause=%s", call.key, error)

        task = asyncio.create_task(post())
        self._events.add(task)
        task.add_done_callback(self._events.discard)


@asynccontextmanager
async def _listen(receiver: _Receiver, host: str, port: int, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
    application = web.Application(client_max_size=MAX_BYTES)
    application.router.add_post(names.WEBHOOK_PATH, receiver.answer)
    runner = web.AppRunner(
        application,
        access_log=None,
        logger=server.make_log(),
        handle_signals=False,
        shutdown_timeout=1,
        auto_decompress=False,  # Alertmanager compresses nothing, and a small body can't become a large one
        lingering_time=2,
        keepalive_timeout=75,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True, ssl_context=tls).start()
        yield
    finally:
        await runner.cleanup()


async def _read_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(READING.total_seconds()):
            return await request.read()
    except TimeoutError as error:
        title = f"the body did not come within {READING.total_seconds():.0f} s"
        raise _RefusedError(408, HealOutcome.MALFORMED, title, {"Connection": "close"}) from error
    except web.HTTPRequestEntityTooLarge as error:
        raise _RefusedError(413, HealOutcome.MALFORMED, f"expected at most {MAX_BYTES} bytes", {"Connection": "close"}) from error
    except (web.RequestPayloadError, aiohttp.ClientError, ConnectionError) as error:
        raise _RefusedError(400, HealOutcome.MALFORMED, "the body is incomplete", {"Connection": "close"}) from error


class _RefusedError(Exception):
    """A request that is answered with nothing but a refusal."""

    def __init__(self, status: int, outcome: HealOutcome, title: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(title)
        self._status, self._outcome, self._title, self._headers = status, outcome, title, headers

    def render(self) -> web.Response:
        """Return the answer, and count it."""
        metrics.HEAL_REQUESTS.labels(self._outcome).inc()
        body = {"title": self._title, "status": self._status}
        return web.json_response(body, status=self._status, headers=self._headers, content_type="application/problem+json")


def _load_tls(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"webhook: the certificate in {folder} can't be used: {error}") from error
    return context


@asynccontextmanager
async def _renewing(context: ssl.SSLContext | None, folder: Path | None) -> AsyncIterator[None]:
    """Take up a renewed certificate for connections that come later, while the context lasts."""

    async def renew() -> None:
        known = b""
        while context is not None and folder is not None:
            known = _renew(context, folder, known)
            await asyncio.sleep(TLS_CHECK.total_seconds())

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()


def _renew(context: ssl.SSLContext, folder: Path, known: bytes) -> bytes:
    """Take up the certificate in the folder unless it is known already, and return it; one that can't be used leaves the former."""
    try:
        files = b"".join((folder / name).read_bytes() for name in ("tls.crt", "tls.key"))
    except OSError:  # while it is replaced
        return known
    if files != known:
        try:
            _load_tls(folder)  # apart: a certificate that doesn't fit its key would leave the context without either
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        except (OSError, SettingsError) as error:
            log.warning("a renewed certificate is not taken up: cause=%s", error)
    return files
