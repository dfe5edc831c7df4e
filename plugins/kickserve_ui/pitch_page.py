"""The pitch page: what is set leads to what is shown, and what somebody settles on is kept."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from nicegui import background_tasks, ui
from nicegui.element import Element

from kickserve.errors import KickserveError
from kickserve.plugins import Scope
from kickserve_scores.explain import explain
from kickserve_ui import answer
from kickserve_ui.answer import Told
from kickserve_ui.controls import Controls
from kickserve_ui.frame import card
from kickserve_ui.geometry import Spot
from kickserve_ui.heat import LEVELS, tee_line
from kickserve_ui.palette import STOPS
from kickserve_ui.scene import changed, read
from kickserve_ui.site import current

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nicegui.events import GenericEventArguments

    from kickserve.schemas import Prediction
    from kickserve_ui.frame import Visit
    from kickserve_ui.heat import HeatMap, TeeLine
    from kickserve_ui.scene import Scene

_REST: Final = 0.5  # seconds after which a value that is left alone counts as chosen


class Pitch(Element, component="static/pitch.js"):
    """The pitch in the browser: see `static/pitch.js`.

    Args:
        start: what it shows first.
        words: what it says.
    """

    def __init__(self, start: dict[str, Any], words: dict[str, str]) -> None:
        super().__init__()
        self._props["start"] = start
        self._props["stops"] = list(STOPS)
        self._props["words"] = words


class PitchPage:
    """One visitor's pitch.

    Args:
        visit: who looks, and in which language.
        query: of the link that led here.
    """

    def __init__(self, visit: Visit, query: Mapping[str, str]) -> None:
        self._site = current()
        self._words = visit.words
        self._visit = visit
        self._client = ui.context.client
        self._scene, self._unusable = read(query)
        self._changes = 0  # so that what was asked for an older scene is not shown over a newer one
        self._resting: asyncio.Task[None] | None = None

    async def build(self) -> None:
        """Make the page as it is for its first scene: whole before any connection stands."""
        self._map = await self._site.maps.of(self._predictor, self._scene)
        self._told = await self._look(self._scene)
        self._tee = await self._tee_line(self._scene)
        words, scene = self._words, self._scene
        self._controls = Controls(words, scene, self._change)
        with ui.element("div").classes("room").props("id=content"):
            ui.html(words("title_pitch"), tag="h1", sanitize=False).classes("unseen")
            with ui.element("section").classes("card result"):
                self._answer = ui.html(sanitize=False).classes("answer")
            with ui.element("section").classes("card field"):
                self._pitch = Pitch(self._start(), {key: words(key) for key in ("pitch", "ball", "halfway")})
                self._pitch.on("move", self._moved).on("drop", self._dropped)
                self._legend = ui.html(sanitize=False).classes("legend")
                self._controls.presets()
                self._foot()
            with ui.element("div").classes("settings"):
                self._controls.kick()
                self._controls.conditions()
            with ui.element("div").classes("reasons"):
                self._reasons()
        self._spoken = ui.label().classes("unseen").props("role=status")
        self._show(scene)
        await self._explain(scene)
        if self._unusable:
            names = ", ".join(self._unusable)
            ui.notify(words("bad_link", names=names), type="warning", timeout=0, close_button="OK")

    @property
    def _predictor(self) -> Any:
        return self._site.service.predictor.current  # each time: a reload puts another in its place

    def _foot(self) -> None:
        with ui.element("div").classes("foot"):
            ui.label(self._words("hint")).classes("hint")
            with ui.element("button").classes("button").on("click", self._copy):
                ui.label(self._words("copy"))
        model = self._predictor.model.card
        origin = f" · {self._words('simulated')}" if "simulated" in model.trained_on.get("data", "") else ""
        ui.label(f"{self._words('model')}: {model.name}{origin}").classes("hint")

    def _reasons(self) -> None:
        with card(self._words("decision"), "decision") as self._decision_card:
            self._controls.values()
            self._decision = ui.html(sanitize=False)
        with card(self._words("tee"), "tee-card") as self._tee_card:
            self._tee_text = ui.html(sanitize=False)
            with ui.element("button").classes("button").on("click", self._take_best):
                ui.label(self._words("tee_take"))
        with card(self._words("drivers"), "drivers"):
            self._drivers = ui.html(sanitize=False)

    # What happens.

    def _change(self, **values: Any) -> None:
        try:
            scene = changed(self._scene, **values)
        except ValueError:
            return  # the input itself says what is wrong
        if scene != self._scene:
            background_tasks.create(self._preview(scene, settle=True))

    async def _moved(self, event: GenericEventArguments) -> None:
        if spot := _spot(event.args):
            await self._preview(self._scene.at(spot), settle=False)

    async def _dropped(self, event: GenericEventArguments) -> None:
        if spot := _spot(event.args):
            self._scene = self._scene.at(spot)
            await self._settle()

    async def _take_best(self) -> None:
        if self._tee is not None:
            self._scene = self._scene.at(self._tee.best)
            await self._settle()

    async def _copy(self) -> None:
        self._client.run_javascript("navigator.clipboard?.writeText(location.href)")
        ui.notify(self._words("copied"), type="positive")

    async def _preview(self, scene: Scene, *, settle: bool) -> None:
        """Show what the model says without keeping it."""
        dragged = not settle
        before, self._scene = self._scene, scene
        turn = self._begin()
        try:
            told, heat = await self._look(scene), await self._site.maps.of(self._predictor, scene)
            tee = await self._tee_line(scene)
        except KickserveError as error:
            self._fail(error)
            return
        if turn != self._changes:
            return
        self._told, self._tee = told, tee
        if heat is not self._map or _line(scene) != _line(before):
            self._paint(heat)
        self._show(scene, place=not dragged)
        if settle:
            self._resting = background_tasks.create(self._settle_at_rest(), name="rest")

    def _begin(self) -> int:
        """Begin a change, and give up what waits for rest; return its number."""
        self._changes += 1
        if self._resting is not None:
            self._resting.cancel()
        return self._changes

    async def _settle_at_rest(self) -> None:
        await asyncio.sleep(_REST)
        self._resting = None
        await self._settle()

    async def _settle(self) -> None:
        """Have the scene's kick predicted and kept, as one that came over the API."""
        turn, scene = self._begin(), self._scene
        try:
            told = await self._ask(scene)
            tee = await self._tee_line(scene)
        except KickserveError as error:
            self._fail(error)
            return
        if turn != self._changes:
            return
        self._told, self._tee = told, tee
        self._show(scene)
        self._spoken.text = answer.summary(self._words, scene, told)
        self._client.run_javascript(f"history.replaceState(null, '', '?{scene.query()}')")
        await self._explain(scene)

    # What is asked.

    async def _ask(self, scene: Scene) -> Told:
        if not self._visit.may(Scope.PREDICT):
            return await self._look(scene)
        found: Prediction | KickserveError = await self._site.service.predictor.predict(scene.kick)
        if isinstance(found, KickserveError):
            return replace(await self._look(scene), note=self._words("not_kept_error", why=found))
        return Told(found.prediction, found.interval, found.warnings, self._words("kept"), kept=True)

    async def _look(self, scene: Scene) -> Told:
        predictor = self._predictor
        row = scene.row
        probability, low, high = (await predictor.score(row[np.newaxis, :]))[0].tolist()
        interval = None if math.isnan(low) else (low, high)
        note = self._words("not_kept_yet" if self._visit.may(Scope.PREDICT) else "not_kept_key")
        return Told(probability, interval, tuple(predictor.model.warnings(row.tolist())), note, kept=False)

    async def _tee_line(self, scene: Scene) -> TeeLine | None:
        return await tee_line(self._predictor, scene) if scene.kind == "conversion" else None

    async def _explain(self, scene: Scene) -> None:
        with suppress(RuntimeError):  # the visitor may be gone
            try:
                found = await explain(self._predictor, scene.row.tolist())
            except KickserveError:
                self._drivers.content = f"<p class='hint'>{self._words('no_drivers')}</p>"
            else:
                self._drivers.content = answer.drivers(self._words, found)

    # What is shown.

    def _show(self, scene: Scene, *, place: bool = True) -> None:
        words, told = self._words, self._told
        self._answer.content = answer.answer(words, scene, told)
        self._legend.content = answer.legend(words, penalty=scene.kind == "penalty")
        self._controls.show(scene)
        self._decision_card.set_visibility(scene.kind == "penalty")
        self._tee_card.set_visibility(scene.kind == "conversion")
        self._decision.content = answer.decision(words, scene, told.probability)
        if self._tee is not None:
            self._tee_text.content = answer.tee(words, scene, self._tee, told.probability)
        if place:
            self._pitch.run_method("place", self._ball(scene), self._tee_mark())

    def _paint(self, heat: HeatMap) -> None:
        picture = None if heat is self._map else heat.picture()
        self._map = heat
        self._pitch.run_method("paint", picture, self._contours(heat))

    def _fail(self, error: KickserveError) -> None:
        self._answer.content = (
            f"<p class='warning' role='alert'>{escape(self._words('failed', why=error))}</p>"
        )

    def _start(self) -> dict[str, Any]:
        return {
            "ball": self._ball(self._scene),
            "tee": self._tee_mark(),
            "heat": self._map.picture(),
            "contours": self._contours(self._map),
        }

    def _ball(self, scene: Scene) -> dict[str, Any]:
        spot = scene.spot
        text = answer.summary(self._words, scene, self._told)
        return {"x": spot.x, "out": spot.out, "distance": scene.distance, "text": text}

    def _tee_mark(self) -> dict[str, Any] | None:
        if self._tee is None:
            return None
        best = self._tee.best
        text = self._words("tee_label", best=self._words.number(best.out, 1))
        return {"x": best.x, "out": best.out, "text": text}

    def _contours(self, heat: HeatMap) -> list[dict[str, Any]]:
        lines = heat.contours(LEVELS)
        for each in lines:
            each["name"] = f"level-{100 * each['level']:.0f}"
            each["text"] = self._words.percent(each["level"], 0)
        even = _line(self._scene)
        if even is not None:
            lines += [{**each, "name": "pays", "label": None} for each in heat.contours([even])]
        return lines


def _line(scene: Scene) -> float | None:
    """Return the probability on the line within which a kick pays, where there is something to decide."""
    return answer.break_even(scene) if scene.kind == "penalty" else None


def _spot(args: Any) -> Spot | None:
    """Read where the ball was put, from the browser: it may be anything; None where that is nowhere."""
    match args:
        case {"x": int() | float() as x, "out": int() | float() as out} if Spot(x, out).on_pitch:
            return Spot(x, out)
    return None
