"""A door to Postgres, run in a pod, that lets in whoever shows a certificate. Arguments: the folder of its own, and the host behind it."""

import asyncio
import contextlib
import ssl
import sys
from pathlib import Path

TLS_WANTED = 80877103
PORT = 5432


async def serve(folder: Path, host: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError), contextlib.closing(writer):
            wanted = await reader.readexactly(8)
            if int.from_bytes(wanted[4:]) != TLS_WANTED:
                return
            writer.write(b"S")
            await writer.start_tls(context)
            subject = writer.get_extra_info("peercert")["subject"]
            sys.stderr.write(f"let in: {subject[0][0][1]}\n")
            behind, to_behind = await asyncio.open_connection(host, PORT)
            await asyncio.gather(carry(reader, to_behind), carry(behind, writer))

    server = await asyncio.start_server(meet, port=PORT)
    await server.serve_forever()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError), contextlib.closing(writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
