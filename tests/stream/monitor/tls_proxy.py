"""A proxy with TLS for tests: `python tls_proxy.py CERTIFICATE KEY {keep,rewrite}`, what is done with the Host header.

Prints its port, reads the port that it hands all on to, and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import threading
from contextlib import suppress


class Proxy:
    """Hands on a request for each connection, and a WebSocket as long as it lives."""

    def __init__(self, *, keep_host: bool) -> None:
        self.to, self._keep_host = 0, keep_host

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes a connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            theirs, ours = await asyncio.open_connection("127.0.0.1", self.to)
            ours.write(self._head(head))
            await asyncio.gather(_pass_on(reader, ours), _pass_on(theirs, writer))

    def _head(self, head: bytes) -> bytes:
        lines = head.split(b"\r\n")
        if not self._keep_host:
            lines = [b"Host: 127.0.0.1" if line.lower().startswith(b"host:") else line for line in lines]
        if b"\r\nupgrade:" not in head.lower():
            lines = [line for line in lines if not line.lower().startswith(b"connection:")]
            lines.insert(1, b"Connection: close")
        return b"\r\n".join(lines)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(certificate: str, key: str, host: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    proxy = Proxy(keep_host=host == "keep")
    server = await asyncio.start_server(proxy.take, "127.0.0.1", 0, ssl=tls)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    proxy.to = int(await asyncio.to_thread(sys.stdin.readline))
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    await server.serve_forever()


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
