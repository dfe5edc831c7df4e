"""The probability at every spot of the pitch: as a picture, as contours, along a line."""

from __future__ import annotations

import base64
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
from contourpy import LineType, contour_generator
from numpy.typing import NDArray

from kickserve_ui.geometry import DEPTH, WIDTH, Spot, kicks_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kickserve.predictor import ServedModel
    from kickserve_ui.scene import Scene

    _Lines = Sequence[NDArray[np.float64]]

LEVELS: Final = (0.2, 0.4, 0.6, 0.8)
STEP: Final = 0.5  # metres between the spots that the model is asked of

_X: Final = np.arange(0, WIDTH + STEP / 2, STEP)
_OUT: Final = np.arange(0, DEPTH + STEP / 2, STEP)
_ALL_X, _ALL_OUT = (each.ravel() for each in np.meshgrid(_X, _OUT))
_NEAREST: Final = (
    5.0  # metres back from the goal line from which a conversion is looked at: charged down before
)
_KEPT: Final = 32  # maps
_ROOM: Final = 3.0  # metres from the goal line that a label needs


class HeatMap(NamedTuple):
    """What the model says of the whole pitch.

    Attributes:
        probability: shape (rows, columns): a row every half metre from the goal line, a column every half
            metre from the left touch line.
        outside: the same shape: where the model warns.
    """

    probability: NDArray[np.float64]
    outside: NDArray[np.bool_]

    def picture(self) -> dict[str, Any]:
        """Return it for the browser: a byte a spot, seven bits of probability and one for a warning."""
        levels = np.rint(self.probability * 127).astype(np.uint8) * 2 + self.outside.astype(np.uint8)
        rows, columns = levels.shape
        return {
            "rows": rows,
            "columns": columns,
            "step": STEP,
            "bytes": base64.b64encode(levels.tobytes()).decode(),
        }

    def contours(self, levels: Sequence[float]) -> list[dict[str, Any]]:
        """Return the lines on which the probability has these values, as SVG paths in metres.

        Returns:
            A dictionary a level: `level`, `path`, and `label`, a spot on the longest line where its label may
            stand, or None.
        """
        generator = contour_generator(_X, _OUT, self.probability, line_type=LineType.Separate)
        return [_contour(level, cast("_Lines", generator.lines(level))) for level in levels]


class TeeLine(NamedTuple):
    """What a conversion's kicker may choose from: how far back to go on the line through the try.

    Attributes:
        out: shape (n,), metres back from the goal line.
        probability: shape (n,).
        best: the spot at which it is highest, among those where the model does not warn if there are any.
        best_probability: there.
    """

    out: NDArray[np.float64]
    probability: NDArray[np.float64]
    best: Spot
    best_probability: float


class Maps:
    """Makes maps, and keeps the newest: who changes a condition back need not wait."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], HeatMap] = OrderedDict()

    async def of(self, served: ServedModel, scene: Scene) -> HeatMap:
        """Return the map for the conditions of a scene; one call of the model, or none."""
        card = served.model.card
        key = (card.name, card.revision, *_conditions(scene))
        found = self._kept.pop(key, None) or await heat_map(served, scene)
        self._kept[key] = found
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found


async def heat_map(served: ServedModel, scene: Scene) -> HeatMap:
    """Ask the model of every spot, under the conditions of a scene. Nothing of it is recorded.

    Raises:
        PredictionFailed: the model could not answer.
    """
    kicks = kicks_at(_ALL_X, _ALL_OUT, scene.row)
    shape = (len(_OUT), len(_X))
    probability = (await served.score(kicks))[:, 0]
    return HeatMap(probability.reshape(shape), served.model.out_of_domain(kicks).reshape(shape))


async def tee_line(served: ServedModel, scene: Scene) -> TeeLine:
    """Ask the model of every spot on the line through the ball, parallel to the touch lines.

    Raises:
        PredictionFailed: the model could not answer.
    """
    out = _OUT[_OUT >= _NEAREST]
    x = scene.spot.x
    kicks = kicks_at(np.full(len(out), x), out, scene.row)
    probability = (await served.score(kicks))[:, 0]
    known = ~served.model.out_of_domain(kicks)
    at = int(np.argmax(np.where(known, probability, -1.0) if known.any() else probability))
    return TeeLine(out, probability, Spot(x, float(out[at])), float(probability[at]))


def _conditions(scene: Scene) -> tuple[Any, ...]:
    return scene.minute, scene.wind, scene.rain, scene.foot, scene.venue, scene.attempts


def _contour(level: float, lines: _Lines) -> dict[str, Any]:
    longest = max(lines, key=len, default=None)
    label = None
    if longest is not None:
        # Where it comes nearest to the middle, in front of the posts: there the lines lie furthest apart.
        label = longest[int(np.argmin(np.abs(longest[:, 0] - WIDTH / 2)))].round(1).tolist()
    if label is not None and label[1] < _ROOM:
        label = None
    return {"level": level, "path": "".join(map(_path, lines)), "label": label}


def _path(line: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{x:.1f} {out:.1f}" for x, out in line.tolist())
