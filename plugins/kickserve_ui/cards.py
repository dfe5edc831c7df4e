"""Cards: drawings (SVG) as PNG, which chats show.

A card takes 0.2 s of a processor, and resvg keeps Python's lock meanwhile: it works in a process of its own,
which also ends alone should it ever fail.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import OrderedDict
from contextlib import suppress
from importlib.resources import as_file, files
from typing import Final

from kickserve.plugins import KickserveError, TooManyRequests

_CACHED: Final = 64  # cards, of about 200 kB
_MOST_WAITING: Final = 20
_PATIENCE: Final = 20.0  # seconds
_NICENESS: Final = 10
_PROGRAM: Final = (
    "import sys, resvg_py; svg = sys.stdin.buffer.read().decode();"
    " png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, font_files=sys.argv[1:]);"
    " sys.stdout.buffer.write(png)"
)


class Cards:
    """Draws cards, one at a time, and caches the newest."""

    def __init__(self) -> None:
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def draw(self, svg: str, digest: str) -> bytes:
        """Return the card of a drawing, as PNG.

        Args:
            svg: the drawing.
            digest: of it.

        Raises:
            TooManyRequests: too many wait already.
            KickserveError: it could not be drawn.
        """
        if digest not in self._cache:
            await self._draw(svg, digest)
        self._cache.move_to_end(digest)
        return self._cache[digest]

    async def _draw(self, svg: str, digest: str) -> None:
        if self._waiting >= _MOST_WAITING:
            raise TooManyRequests("many cards are being drawn: ask again", wait=2)
        self._waiting += 1
        try:
            async with self._turn:
                if digest not in self._cache:  # another visitor may have asked for it before
                    self._cache[digest] = await _rasterize(svg)
        finally:
            self._waiting -= 1
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)


async def _rasterize(svg: str) -> bytes:
    pipe = asyncio.subprocess.PIPE
    with as_file(files("kickserve_ui").joinpath("static", "roboto.ttf")) as font:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-Pc", _PROGRAM, str(font), stdin=pipe, stdout=pipe, stderr=pipe
        )
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
        try:
            png, fault = await asyncio.wait_for(process.communicate(svg.encode()), _PATIENCE)
        except TimeoutError:
            raise KickserveError("the card took too long: ask again") from None
        finally:
            if process.returncode is None:
                process.kill()
    if process.returncode != 0:
        raise KickserveError(f"the card can't be drawn: {fault.decode(errors='replace').strip()[-200:]}")
    return png
