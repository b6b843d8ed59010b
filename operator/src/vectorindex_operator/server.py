"""The operator's own HTTP port: /livez, /readyz and /metrics. What they tell is decided by `operator`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from vectorindex_operator import names


@asynccontextmanager
async def serve(host: str, port: int, is_alive: Callable[[], bool], is_ready: Callable[[], bool]) -> AsyncIterator[None]:
    """Answer probes and scrapes until the context ends."""

    async def answer_metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(REGISTRY), headers={"Content-Type": content_type})

    def answer(test: Callable[[], bool]) -> Callable[[web.Request], "web.Response"]:
        return lambda _: web.Response(text="ok\n") if test() else web.Response(status=503, text="no\n")

    async def answer_livez(request: web.Request) -> web.Response:
        return answer(is_alive)(request)

    async def answer_readyz(request: web.Request) -> web.Response:
        return answer(is_ready)(request)

    application = web.Application()
    application.router.add_get(names.LIVEZ_PATH, answer_livez)
    application.router.add_get(names.READYZ_PATH, answer_readyz)
    application.router.add_get(names.METRICS_PATH, answer_metrics)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
        yield
    finally:
        await runner.cleanup()
