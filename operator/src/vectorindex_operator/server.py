"""The operator's own HTTP port: /livez, /readyz and /metrics, answered from a thread of its own; what they tell others decide."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager

from aiohttp import http_exceptions, web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from vectorindex_operator import names

Find = Callable[[], str]
"""Returns what is wrong, or nothing. Asked from the server's thread."""


def serve(host: str, port: int, find_hang: Find, find_unready: Find) -> AbstractContextManager[None]:
    """Answer probes and scrapes until the context ends; raise OSError if the port is taken."""
    return beside("server", lambda: _serve(host, port, find_hang, find_unready))


@contextmanager
def beside(name: str, answering: Callable[[], AbstractAsyncContextManager[None]]) -> Iterator[None]:
    """Keep `answering` open in a loop and thread of its own, also while the caller's loop hangs; raise what it raises at its start."""
    begun: Future[Callable[[], object]] = Future()

    async def run() -> None:
        end = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            async with answering():
                begun.set_result(lambda: loop.call_soon_threadsafe(end.set))
                await end.wait()
        except Exception as error:
            if begun.done():
                raise
            begun.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name=name, daemon=True)
    thread.start()
    stop = begun.result()
    try:
        yield
    finally:
        stop()
        thread.join(2)


def make_log() -> logging.Logger:
    """Return where HTTP servers tell of their errors; what is no HTTP is answered 400, and needs no traceback for each that sends it."""
    log = logging.getLogger(f"{__name__}.http")
    log.addFilter(_is_ours)
    return log


def _is_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], http_exceptions.HttpProcessingError))


@asynccontextmanager
async def _serve(host: str, port: int, find_hang: Find, find_unready: Find) -> AsyncIterator[None]:
    async def answer_metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})

    def answer(find: Find) -> web.Response:
        wrong = find()
        return web.Response(status=503, text=f"{wrong}\n") if wrong else web.Response(text="ok\n")

    async def answer_livez(_: web.Request) -> web.Response:
        return answer(find_hang)

    async def answer_readyz(_: web.Request) -> web.Response:
        return answer(find_unready)

    application = web.Application()
    application.router.add_get(names.LIVEZ_PATH, answer_livez)
    application.router.add_get(names.READYZ_PATH, answer_readyz)
    application.router.add_get(names.METRICS_PATH, answer_metrics)
    runner = web.AppRunner(application, access_log=None, logger=make_log(), handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
        yield
    finally:
        await runner.cleanup()
