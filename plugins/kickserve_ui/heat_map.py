"""The probability at every spot of the pitch, as bytes that the browser draws and reads; its colours."""

from __future__ import annotations

import struct
import zlib
from collections import OrderedDict
from dataclasses import replace
from functools import cache, lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kickserve.features import BY_NAME, INDEX
from kickserve_ui.page_state import DEPTH, WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kickserve.plugins import Learner, ServedModel
    from kickserve.schemas import ModelCard
    from kickserve_ui.page_state import PageState

# Colours of probabilities from 0 to 1: lightness rises with probability, so that every eye can order them.
STOPS: Final = ("#2c2a63", "#34518f", "#2b7b94", "#359f88", "#7cc06c", "#d9d65b")
GRADIENT: Final = f"linear-gradient(90deg, {', '.join(STOPS)})"
STEP: Final = 0.5  # metres between the spots of a map
_MATCH_STEP: Final = 2.0  # of the maps for a match, which are many: between the spots the map is smooth

_DISTANCE: Final = BY_NAME["distance"]
# What changes in a match: the first minutes, both halves and the last minutes by a minute of each.
_IN_MATCH: Final[dict[str, tuple[Any, ...]]] = {
    "venue": ("home", "away"),
    "foot": ("right", "left"),
    "attempts": ("no", "yes"),
    "minute": (2, 22, 57, 78),
}
_CONDITIONS: Final = [at for name, at in INDEX.items() if name not in {"distance", "angle", "is_left_side"}]
_CACHED: Final = 32  # maps of 70 kB, or all of a match, of 150
_PALE: Final = 0.47  # opacity where the model warns, as static/heat.js draws it
_WHOLE: Final = 32_767  # of 15 bits: a probability of 1


class HeatMaps:
    """Makes maps, and caches the newest: a condition that is changed back takes no call of the model."""

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()

    async def get(self, served: ServedModel, state: PageState, learner: Learner | None) -> bytes:
        """Return the map for the conditions of a state; nothing is recorded.

        Args:
            served: the model.
            state: its spot does not count.
            learner: adjusts the model's answers; then nothing is cached, as it learns on.

        Returns:
            The length of a JSON header (4 bytes) and the header: name and revision of the model, rows,
            columns and the metres between them, from the goal line and from the left touch line, and the
            conditions of each map. Then, map by map, a 16-bit word a spot: 15 bits of probability, and one
            for a warning of the model. Then, if the model gives an interval, a byte a spot for the lower
            ends of all maps, and one for the upper ends. All numbers are little-endian.

        Raises:
            PredictionFailed: the model failed.
        """
        return await self._cached(served, [state], STEP, learner)

    async def of_match(self, served: ServedModel, state: PageState, learner: Learner | None) -> bytes:
        """Return the maps of a match for an unnamed kicker, as `get`: for all that changes but the weather.

        Args:
            served: the model.
            state: its wind and rain count.
            learner: as for `get`.

        Raises:
            PredictionFailed: the model failed.
        """
        state = replace(state, kicker="", phase="")
        named = (dict(zip(_IN_MATCH, values, strict=True)) for values in product(*_IN_MATCH.values()))
        return await self._cached(served, [replace(state, **each) for each in named], _MATCH_STEP, learner)

    async def _cached(
        self, served: ServedModel, states: Sequence[PageState], step: float, learner: Learner | None
    ) -> bytes:
        if learner is not None and (states[0].kicker or learner.unnamed):
            return await _maps(served, states, step, learner)
        card = served.model.card
        key = (card.name, card.revision, step, *states[0].row[_CONDITIONS].tolist())
        found = self._cache.pop(key, None) or await _maps(served, states, step, None)
        self._cache[key] = found
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return found


def about(card: ModelCard) -> dict[str, Any]:
    """Return what the page says of a model."""
    simulated = "simulated" in str(card.trained_on.get("data", ""))
    return {
        "model": card.name,
        "revision": card.revision,
        "simulated": simulated,
        "assumed": card.assumed,
    }


async def score(
    served: ServedModel, rows: NDArray[np.float64], learner: Learner | None, kicker: str | None
) -> NDArray[np.float64]:
    """Score kicks of a kicker as the service answers them, without a record.

    Args:
        served: the model.
        rows: shape (n, 11).
        learner: of the service.
        kicker: label of the kicker; None for an unnamed one.

    Returns:
        Probability, low and high, shape (n, 3).

    Raises:
        PredictionFailed: the model failed.
    """
    scores = await served.score(rows)
    if learner is None or not (kicker or learner.unnamed):
        return scores
    adjusted = learner.adjust_many(served.model.card.revision, scores, [kicker] * len(rows))
    return scores if adjusted is None else adjusted[0]


async def _maps(
    served: ServedModel, states: Sequence[PageState], step: float, learner: Learner | None
) -> bytes:
    x, out = np.arange(0, WIDTH + step / 2, step), np.arange(0, DEPTH + step / 2, step)
    all_x, all_out = (each.ravel() for each in np.meshgrid(x, out))
    kicks = np.concatenate([_kicks_at(all_x, all_out, each.row) for each in states])
    scores = await score(served, kicks, learner, states[0].kicker or None)
    warned = served.model.out_of_domain(kicks)
    words: NDArray[np.uint16] = np.rint(scores[:, 0] * _WHOLE).astype("<u2") * 2 + warned.astype("<u2")
    ends = b"" if np.isnan(scores).any() else np.rint(scores[:, 1:].T * 255).astype("u1").tobytes()
    shape = {"rows": len(out), "columns": len(x), "step": step}
    conditions = [{name: getattr(each, name) for name in (*_IN_MATCH, "wind", "rain")} for each in states]
    header = msgspec.json.encode({**about(served.model.card), **shape, "conditions": conditions})
    return b"".join((struct.pack("<I", len(header)), header, words.tobytes(), ends))


def colour_of(probability: float) -> str:
    """Return the colour of a probability, 0 to 1, for CSS."""
    position = min(max(probability, 0.0), 1.0) * (len(STOPS) - 1)
    at = min(int(position), len(STOPS) - 2)
    low, high = (bytes.fromhex(stop[1:]) for stop in STOPS[at : at + 2])
    mixed = (round(a + (b - a) * (position - at)) for a, b in zip(low, high, strict=True))
    return f"#{bytes(mixed).hex()}"


@lru_cache(_CACHED)
def picture(found: bytes) -> bytes:
    """Return a map as a picture: PNG, a pixel a spot; where the model warns it is pale, with a soft edge.

    Args:
        found: as `HeatMaps.get` returns it.
    """
    (length,) = struct.unpack_from("<I", found)
    shape = msgspec.json.decode(found[4 : 4 + length])
    rows, columns = shape["rows"], shape["columns"]
    words = np.frombuffer(found, "<u2", rows * columns, 4 + length)
    pixels = _palette()[np.rint((words >> 1) * (255 / _WHOLE)).astype(np.intp)]
    pale = _softened((words & 1).reshape(rows, columns).astype(np.float64))
    pixels[:, 3] = np.rint(255 * (1 - (1 - _PALE) * pale)).ravel()
    lines = np.insert(pixels.reshape(rows, -1), 0, 0, axis=1)  # a line begins with its filter: none
    head = struct.pack(
        ">IIBBBBB", columns, rows, 8, 6, 0, 0, 0
    )  # eight bits for each of red, green, blue, alpha
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def _softened(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    for _ in range(2):
        plane = sliding_window_view(np.pad(plane, 1, mode="edge"), (3, 3)).mean(axis=(2, 3))
    return plane


@cache
def _palette() -> NDArray[np.uint8]:
    """Return red, green, blue and alpha of 256 levels of probability, shape (256, 4)."""
    colours = b"".join(bytes.fromhex(f"{colour_of(level / 255)[1:]}ff") for level in range(256))
    return np.frombuffer(colours, np.uint8).reshape(256, 4)


def _kicks_at(
    x: NDArray[np.float64], out: NDArray[np.float64], row: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return kicks that differ in their spots alone.

    Args:
        x: shape (n,), metres from the left touch line.
        out: shape (n,), metres from the goal line.
        row: eleven numbers, in the order of `kickserve.features.NAMES`; its spot is replaced.

    Returns:
        Shape (n, 11); distances are clipped to the service's range.
    """
    kicks = np.repeat(row[np.newaxis, :], len(x), axis=0)
    aside = x - WIDTH / 2
    kicks[:, INDEX["distance"]] = np.clip(np.hypot(aside, out), _DISTANCE.low, _DISTANCE.high)
    kicks[:, INDEX["angle"]] = np.degrees(np.arctan2(np.abs(aside), out))
    kicks[:, INDEX["is_left_side"]] = aside < 0
    return kicks
