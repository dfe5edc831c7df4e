"""The three ways to a prediction: whole services whose connections take bytes in memory, or over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from uvicorn.server import ServerState

from kickserve import server
from kickserve.app import create_app
from kickserve.settings import Settings
from kickserve_lane.limits import ConnectionLimits, LimitedConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from kickserve.middleware import App

WAYS: Final = ("router", "lane of the application", "lane of the connection")
_QUIET: Final = 25  # turns of the event loop in which nothing is written: nothing more will come of it
_HUNG: Final = 20.0  # seconds
_SILENT: Final = 0.05
_CHANGES: Final = re.compile(
    rb'(?i)("(?:id|request_id|created_at)":"|x-request-id: |date: )(?!asked-)[0-9a-z ,:.-]{17,36}'
)
_ALLOW: Final = re.compile(rb"(?im)^(allow: )(.*?)\r$")


def alike(answers: bytes) -> bytes:
    """Leave out of answers what differs from one request to the next: ids, dates, the order of methods."""
    answers = _CHANGES.sub(rb"\1", answers)
    if b"allow: " in answers:
        answers = _ALLOW.sub(lambda found: found[1] + b",".join(sorted(found[2].split(b", "))), answers)
    return answers


class Wire(asyncio.Transport):
    """A transport in memory: what one end of a connection is written to."""

    def __init__(self, way: Way, segments: Sequence[bytes]) -> None:
        super().__init__()
        self._way = way
        self.left = [*reversed(segments)]
        self.written: list[bytes] = []
        self.paused = self.closing = False
        self.protocol: Any = way.connection()
        self._lost = False
        self.protocol.connection_made(self)

    def feed(self) -> bool:
        """Give the next segment to the connection, where it takes one; say whether there was one."""
        if not self.left or self.paused or self.closing:
            return False
        self._way.events += 1
        self.protocol.data_received(self.left.pop())
        return True

    def settled(self) -> bool:
        """Say whether the connection waits for its client, or has ended."""
        if self.closing or not isinstance(self.protocol, LimitedConnection):
            return True
        # What only the connection knows: whether an answer is being made, or one that ends it.
        waits = self.protocol._cycle() is not None  # noqa: SLF001
        in_body = self.protocol._in_body and not (self.left or self.protocol.pipeline)  # noqa: SLF001
        return self.protocol._fault is None and (not waits or in_body)  # noqa: SLF001

    def lose(self) -> None:
        """Let the client go."""
        self.closing = True
        if not self._lost:
            self._lost = True
            self.protocol.connection_lost(None)

    def write(self, data: Any) -> None:
        """Note what is sent."""
        if not self.closing:
            self._way.events += 1
            self.written.append(bytes(data))

    def writelines(self, parts: Any) -> None:
        """Note what is sent."""
        self.write(b"".join(parts))

    def close(self) -> None:
        """End it after what is written."""
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.lose)

    abort = close

    def is_closing(self) -> bool:
        """Say whether it ends."""
        return self.closing

    def pause_reading(self) -> None:
        """Hold back what the client sends."""
        self.paused = True

    def resume_reading(self) -> None:
        """Go on with it."""
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Say where the ends are."""
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)

    def get_write_buffer_size(self) -> int:
        """Say that all is taken at once."""
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """All is taken at once."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Go on with another protocol."""
        self.protocol = protocol

    def get_protocol(self) -> Any:
        """Return the protocol."""
        return self.protocol

    def write_eof(self) -> None:
        """The other direction stays."""

    def can_write_eof(self) -> bool:
        """Say that it could be half closed."""
        return True


class Way:
    """A service that answers in one of the ways.

    Attributes:
        events: segments taken and answers written.
    """

    def __init__(self, app: App, name: str, settings: Settings) -> None:
        self.name = name
        self.app = app
        self.events = 0
        self._config = server.configuration(app, settings)
        if name == "lane of the application":
            self._config.http = partial(LimitedConnection, app, ConnectionLimits(settings))
        self._config.load()
        self._state = ServerState()

    def connection(self) -> Any:
        """Make a connection."""
        made: Any = self._config.http_protocol_class
        return made(config=self._config, server_state=self._state, app_state={})

    async def answers(
        self, conversations: Sequence[Sequence[bytes]], *, patiently: bool = False
    ) -> list[bytes]:
        """Have conversations all at once, and return what each was answered, "HUNG" where one never ended.

        Args:
            conversations: the segments of each.
            patiently: whether a segment is sent only when what came before is answered.
        """
        wires = [Wire(self, segments) for segments in conversations]
        hung = await self._settle(wires, patiently=patiently)
        for wire in wires:
            wire.lose()
        while self._state.tasks:
            await asyncio.sleep(0)
        return [b"".join(wire.written) + b"HUNG" * (at in hung) for at, wire in enumerate(wires)]

    async def _settle(self, wires: list[Wire], *, patiently: bool) -> set[int]:
        quiet, since = 0, time.monotonic()
        while quiet < _QUIET:
            before = self.events
            for wire in wires:
                if not patiently or (quiet == _QUIET - 1 and wire.settled()):
                    wire.feed()
            await asyncio.sleep(0)
            if self.events != before:
                quiet, since = 0, time.monotonic()
            elif all(wire.settled() for wire in wires):
                quiet += 1
            elif time.monotonic() - since > _HUNG:
                break
        return {at for at, wire in enumerate(wires) if not wire.settled()}

    async def answers_over_sockets(self, conversations: Sequence[Sequence[bytes]]) -> list[bytes]:
        """Have conversations over real sockets, all at once."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(self.connection, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        try:
            return await asyncio.gather(*(_talk(port, each) for each in conversations))
        finally:
            listener.close()
            await listener.wait_closed()

    def counted(self) -> dict[str, Any]:
        """Return what the service has counted of whole requests.

        Of one that breaks off it depends on the moment what becomes of it, and hence how it counts.
        """
        reading = self.app.state.service.metrics.read()
        statuses = next((each.statuses for each in reading.routes if each.route.endswith("/predict")), {})
        whole = {status: statuses.get(status, 0) for status in ("200", "400", "422")}
        return {**whole, "predictions": reading.predictions, "refusals": reading.counts["refused_kicks"]}

    async def kept(self) -> int:
        """Return how many predictions are stored."""
        service = self.app.state.service
        await service.recorder.flush()
        found: int = await service.store.count()
        return found


async def _talk(port: int, segments: Sequence[bytes]) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with contextlib.suppress(ConnectionError):
        for segment in segments:
            writer.write(segment)
            await writer.drain()
            await asyncio.sleep(0)
    with contextlib.suppress(ConnectionError, TimeoutError):
        while more := await asyncio.wait_for(reader.read(65_536), 10 * _SILENT if not answer else _SILENT):
            answer += more
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


@contextlib.asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[list[Way]]:
    """Run the service in all three ways, side by side, each with a store and a journal of its own."""
    async with contextlib.AsyncExitStack() as stack:
        ways = []
        for number, name in enumerate(WAYS):
            settings = Settings(
                rate_failures=None,  # one way would be short of answers because another was asked more
                **{
                    "database_url": f"sqlite:///{folder}/{number}.db",
                    "journal_dir": folder / f"journal-{number}",
                    "plugins": ("storage",),
                    "body_max": 63_000,  # so that some are too large for the lane alone, and some for all
                    "batch_max": 1,  # several at once may differ from one alone in the last bit of a number
                    "fastlane": name != "router",
                    **changes,
                },
            )
            app = create_app(settings)
            await stack.enter_async_context(app.lifespan())
            ways.append(Way(app, name, settings))
        yield ways
