"""A TCP proxy that misbehaves on order: what networks do between a client and a server.

Bytes pass unchanged, or not at all: none is ever altered. What goes wrong is drawn from a seeded generator; which connection it strikes
depends on the clients all the same.
"""

from __future__ import annotations

import asyncio
import enum
import random
import socket
import struct
import threading
from collections import Counter
from contextlib import suppress
from typing import Self

from hop_archive.devkit.local.machine import LOOPBACK

_CHUNK_BYTES = 65_536
_LONGEST_DELAY_S = 0.5
_THROTTLED_PIECES = 16
_PIECE_S = 0.02
_ENDING_S = 10.0
_RESET = struct.pack("ii", 1, 0)


class Trouble(enum.Enum):
    """What may go wrong with a connection.

    Attributes:
        REFUSE: A new one is closed at once.
        RESET: Both ends are reset; what was on its way is gone.
        CUT: Half of what came passes, then it is closed: half a request, or half an answer.
        NO_ANSWER: What was asked for takes effect; in the place of the answer it is reset.
        DELAY: What comes waits for up to half a second.
        THROTTLE: What comes passes in small pieces.
        BLACKHOLE: Nothing passes, and nobody is told, until the proxy is calm; then it is reset.
    """

    REFUSE = "refuse"
    RESET = "reset"
    CUT = "cut"
    NO_ANSWER = "no answer"
    DELAY = "delay"
    THROTTLE = "throttle"
    BLACKHOLE = "blackhole"


class Proxy:
    """Passes on what comes to ``port`` to a server on this machine, while its block runs.

    Attributes:
        port: Where it listens.
        struck: How often each trouble has struck.
    """

    def __init__(self, upstream_port: int, *, seed: int = 0, port: int = 0) -> None:
        self.port = port
        self.struck: Counter[Trouble] = Counter()
        self._upstream_port = upstream_port
        self._random = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._trouble: tuple[Trouble, float] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._calm = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._connected, LOOPBACK, self.port)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_ENDING_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def begin(self, trouble: Trouble, chance: float = 1.0) -> None:
        """Let a trouble strike what comes from now on, each time with this chance; it takes the place of the one before."""
        self._now((trouble, chance))

    def calm(self) -> None:
        """Let everything pass again."""
        self._now(None)

    def _now(self, trouble: tuple[Trouble, float] | None) -> None:
        async def change() -> None:
            self._trouble = trouble
            if trouble is None:
                self._calm.set()
            else:
                self._calm.clear()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result()

    async def _end(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        writers = [writer]
        try:
            if self._strikes(Trouble.REFUSE):
                return
            upstream, to_upstream = await asyncio.open_connection(LOOPBACK, self._upstream_port)
            writers.append(to_upstream)
            await asyncio.gather(
                self._pump(reader, to_upstream, answers=False), self._pump(upstream, writer, answers=True)
            )
        except (OSError, _Broken, asyncio.CancelledError):
            # Close with RST, dropping what was not sent yet; one that is being closed already sends that.
            for each in writers:
                if not each.is_closing():
                    with suppress(OSError):
                        connection: socket.socket = each.get_extra_info("socket")
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    each.transport.abort()
        finally:
            for each in writers:
                each.close()
            self._connections.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            if self._strikes(Trouble.BLACKHOLE):
                await self._calm.wait()
                raise _Broken
            if self._strikes(Trouble.RESET) or (answers and self._strikes(Trouble.NO_ANSWER)):
                raise _Broken
            if self._strikes(Trouble.CUT):
                writer.write(data[: len(data) // 2])
                await writer.drain()
                writer.close()
                raise _Broken
            if self._strikes(Trouble.DELAY):
                await asyncio.sleep(self._random.random() * _LONGEST_DELAY_S)
            piece = len(data)
            if self._strikes(Trouble.THROTTLE):
                piece = max(1, len(data) // _THROTTLED_PIECES)
            for start in range(0, len(data), piece):
                writer.write(data[start : start + piece])
                await writer.drain()
                if piece < len(data):
                    await asyncio.sleep(_PIECE_S)
        with suppress(OSError):
            writer.write_eof()

    def _strikes(self, trouble: Trouble) -> bool:
        set_now = self._trouble
        if set_now is None or set_now[0] is not trouble or self._random.random() >= set_now[1]:
            return False
        self.struck[trouble] += 1
        return True


class _Broken(Exception):  # noqa: N818 - it is what was ordered, and no error
    """The connection is to be broken now."""
