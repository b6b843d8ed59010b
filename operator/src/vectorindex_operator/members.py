"""Asks the pods of an index for `GET /v1/status` and leaves what an answer means to `reports`."""

import asyncio
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from vectorindex_operator import names
from vectorindex_operator.errors import ReportError
from vectorindex_operator.reports import Report, parse_report

TIMEOUT: Final = timedelta(seconds=2)
MAX_BYTES: Final = 256 * 1024
MAX_PARALLEL: Final = 64


@dataclass(frozen=True)
class Address:
    """Where one pod answers."""

    pod: str
    uid: str
    ip: str


class Members:
    """The pods of all indexes, as the operator reaches them. Use as an async context manager."""

    def __init__(self, port: int = names.OPS_PORT) -> None:
        self._port = port
        self._limit = asyncio.Semaphore(MAX_PARALLEL)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT.total_seconds()),
            connector=aiohttp.TCPConnector(limit=MAX_PARALLEL, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def read_reports(self, addresses: Iterable[Address]) -> dict[str, Report | ReportError]:
        """Return, by pod name, what each pod answers or why its answer can't be used."""
        wanted = list(addresses)
        answers = await asyncio.gather(*(self._read(address) for address in wanted))
        return {address.pod: answer for address, answer in zip(wanted, answers, strict=True)}

    async def _read(self, address: Address) -> Report | ReportError:
        try:
            async with self._limit:
                body = await self._get(address)
            return parse_report(body, address.uid)
        except ReportError as error:
            return error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return ReportError("it can't be reached on its status port")

    async def _get(self, address: Address) -> bytes:
        assert self._session is not None  # noqa: S101 - used inside `async with`
        ip: Any = ipaddress.ip_address(address.ip)
        host = f"[{ip}]" if ip.version == 6 else str(ip)
        async with self._session.get(f"http://{host}:{self._port}{names.STATUS_PATH}", allow_redirects=False) as response:
            if response.status != 200:
                raise ReportError("its status port answers with an error")
            chunks = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                chunks += chunk
                if len(chunks) > MAX_BYTES:
                    raise ReportError("its status document is too large")
            return bytes(chunks)
