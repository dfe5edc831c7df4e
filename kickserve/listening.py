"""Takes the port: one socket, or for several workers one each; and lets nobody in any more at the end."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from kickserve.errors import ConfigurationError

if TYPE_CHECKING:
    from kickserve.settings import Settings

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_BACKLOG: Final = 2048
_SO_ATTACH_FILTER: Final = 26  # Linux; the socket module does not name it
_RETURN_NOTHING: Final = struct.pack("HBBI", 0x06, 0, 0, 0)  # a filter of one instruction: keep 0 bytes


def bind(settings: Settings) -> socket.socket:
    """Take the port.

    Raises:
        ConfigurationError: without a key, for an address that others can reach; or the port is taken.
    """
    return bind_all(settings, 1)[0]


def bind_all(settings: Settings, count: int) -> list[socket.socket]:
    """Take the port with a queue of connections for each worker, as far as the system knows such.

    The system spreads connections evenly over the queues. Where it knows none (no SO_REUSEPORT, or not
    in this way), all share one: the list then holds the same socket several times.

    Args:
        settings: host and port; port 0 takes a free one, the same for all.
        count: how many workers, from 1.

    Raises:
        ConfigurationError: without a key, for an address that others can reach; or the port is taken.
    """
    host, port = settings.host, settings.port
    if not settings.guarded and host not in _LOOPBACK:
        raise ConfigurationError(
            f"KICKSERVE_HOST={host!r} can be reached from other machines, and no key guards the service:"
            " set API_KEY or KICKSERVE_KEYS, or listen on 127.0.0.1"
        )
    try:
        return _listen(host, port, count)
    except (OSError, OverflowError, TypeError) as error:  # the last: a name that can not be encoded
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"can't listen on {host}:{port} ({reason}): choose another with KICKSERVE_PORT or --port"
        ) from error


def turn_away(listener: socket.socket) -> None:
    """Let no new connection into the queue of a socket, so that it can be emptied and closed.

    Whoever knocks hears nothing, knocks again after a second, and finds the socket closed or another in its
    place. Closing at once would cut off those who are in the queue already. Only Linux knows this; it holds
    in all processes that share the socket.
    """
    if sys.platform == "linux":
        code = ctypes.create_string_buffer(_RETURN_NOTHING)
        program = struct.pack("HP", 1, ctypes.addressof(code))
        with suppress(OSError):  # a kernel without filters
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _listen(host: str, port: int, count: int) -> list[socket.socket]:
    with ExitStack() as undo:
        # Bound as if alone, so that a port that another service shares with itself is refused too.
        first = undo.enter_context(_bound(host, port, shared=False))
        listeners = [first]
        if count > 1 and _share(first):
            with suppress(OSError):
                for _ in range(1, count):
                    port = first.getsockname()[1]
                    listeners.append(undo.enter_context(_bound(host, port, shared=True)))
        for each in listeners:
            each.listen(_BACKLOG)
        undo.pop_all()
    # Queues for some of the workers alone would be of no use: the rest shares the first.
    return listeners + [first] * (count - len(listeners))


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if sys.platform != "win32":  # there it would let anybody take the port over
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            _share(listener)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def _share(listener: socket.socket) -> bool:
    """Let others of ours take the same port; say whether the system does that."""
    option: int | None = getattr(socket, "SO_REUSEPORT", None)
    if option is None or sys.platform != "linux":  # elsewhere all connections go to one of the sockets
        return False
    try:
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    except OSError:
        return False
    return True
