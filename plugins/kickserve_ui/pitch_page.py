"""The pitch page: changes lead to a preview of the answer, and a kick that is settled on is recorded."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from nicegui import background_tasks, ui
from nicegui.element import Element

from kickserve.plugins import KickserveError, Scope
from kickserve_scores.explain import explain
from kickserve_ui import pitch_html
from kickserve_ui.backend import current_backend
from kickserve_ui.controls import Controls
from kickserve_ui.heat_map import STOPS, tee_line
from kickserve_ui.layout import card
from kickserve_ui.page_state import Spot, read
from kickserve_ui.pitch_html import Answer
from kickserve_ui.rendering import hint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from nicegui.events import GenericEventArguments

    from kickserve_ui.heat_map import HeatMap, TeeLine
    from kickserve_ui.layout import Visitor
    from kickserve_ui.page_state import PageState

    _Find = Callable[[PageState], Awaitable[Answer]]

_REST: Final = 0.5  # seconds after which a value that is left alone counts as settled on


class Pitch(Element, component="static/pitch.js"):
    """The pitch in the browser: see `static/pitch.js`.

    Args:
        start: its contents.
        words: its labels.
    """

    def __init__(self, start: dict[str, Any], words: dict[str, str]) -> None:
        super().__init__()
        self._props["start"] = start
        self._props["stops"] = list(STOPS)
        self._props["words"] = words


class PitchPage:
    """A visitor's pitch.

    Args:
        visitor: of the page.
        query: of its link.
    """

    def __init__(self, visitor: Visitor, query: Mapping[str, str]) -> None:
        self._backend = current_backend()
        self._visitor = visitor
        self._messages = visitor.messages
        self._client = ui.context.client
        self._state, self._unusable = read(query)
        self._changes = 0  # so that the answer for an older state is not shown over a newer one
        self._resting: asyncio.Task[None] | None = None

    async def build(self) -> None:
        """Make the whole page for its first state, before the browser connects."""
        messages, state = self._messages, self._state
        self._map = await self._backend.maps.get(self._backend.served, state)
        self._pays: float | None = None  # the level of the line that is shown
        self._answer = await self._look(state)
        self._tee = await self._tee_line(state)
        self._controls = Controls(messages, state, self._change)
        with ui.element("div").classes("room").props("id=content"):
            ui.html(messages("title_pitch"), tag="h1", sanitize=False).classes("unseen")
            with ui.element("section").classes("card result"):
                self._answer_html = ui.html(sanitize=False).classes("answer")
            with ui.element("section").classes("card field"):
                labels = {key: messages(key) for key in ("pitch", "ball", "halfway")}
                self._pitch = Pitch(self._pitch_contents(), labels)
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
        self._show(state)
        await self._explain(state)
        if self._unusable:
            text = messages("bad_link", names=", ".join(self._unusable))
            ui.notify(text, type="warning", timeout=0, close_button="OK")

    def _foot(self) -> None:
        messages = self._messages
        with ui.element("div").classes("foot"):
            ui.label(messages("hint")).classes("hint")
            with ui.element("button").classes("button").on("click", self._copy_link):
                ui.label(messages("copy"))
        model = self._backend.served.model.card
        origin = f" · {messages('simulated')}" if "simulated" in model.trained_on.get("data", "") else ""
        ui.label(f"{messages('model')}: {model.name}{origin}").classes("hint")

    def _reasons(self) -> None:
        messages = self._messages
        with card(messages("decision"), "decision") as self._decision_card:
            self._controls.values()
            self._decision = ui.html(sanitize=False)
        with card(messages("tee"), "tee-card") as self._tee_card:
            self._tee_html = ui.html(sanitize=False)
            with ui.element("button").classes("button").on("click", self._take_best):
                ui.label(messages("tee_take"))
        with card(messages("drivers"), "drivers"):
            self._drivers = ui.html(sanitize=False)

    # Events.

    def _change(self, **values: Any) -> None:
        try:
            state = self._state.changed(**values)
        except ValueError:
            return  # the input itself shows the fault
        if state != self._state:
            background_tasks.create(self._preview(state, settle=True))

    async def _moved(self, event: GenericEventArguments) -> None:
        if spot := _spot(event.args):
            await self._preview(self._state.at(spot), settle=False)

    async def _dropped(self, event: GenericEventArguments) -> None:
        if spot := _spot(event.args):
            await self._settle(self._state.at(spot))

    async def _take_best(self) -> None:
        if self._tee is not None:
            await self._settle(self._state.at(self._tee.best))

    async def _copy_link(self) -> None:
        self._client.run_javascript("navigator.clipboard?.writeText(location.href)")
        ui.notify(self._messages("copied"), type="positive")

    async def _preview(self, state: PageState, *, settle: bool) -> None:
        """Show the answer without recording it.

        Args:
            state: to show.
            settle: whether the state counts as settled on after a rest; false while the ball is dragged.
        """
        if await self._answer_for(state, self._look, place=settle) and settle:
            self._resting = background_tasks.create(self._settle_at_rest(), name="rest")

    async def _settle_at_rest(self) -> None:
        await asyncio.sleep(_REST)
        self._resting = None
        await self._settle(self._state)

    async def _settle(self, state: PageState) -> None:
        """Have a kick predicted and recorded, as one that came over the API."""
        if await self._answer_for(state, self._predict):
            self._spoken.text = pitch_html.summary(self._messages, state, self._answer)
            self._client.run_javascript(f"history.replaceState(null, '', '?{state.query()}')")
            await self._explain(state)

    async def _answer_for(self, state: PageState, find: _Find, *, place: bool = True) -> bool:
        """Show the answer to a state; return whether it came, and before another change."""
        self._state = state
        self._changes += 1
        change = self._changes
        if self._resting is not None:
            self._resting.cancel()
        try:
            answer = await find(state)
            heat = await self._backend.maps.get(self._backend.served, state)
            tee = await self._tee_line(state)
        except KickserveError as error:
            self._show_failure(error)
            return False
        if change != self._changes:
            return False
        self._answer, self._tee = answer, tee
        if heat is not self._map or _pays_level(state) != self._pays:
            self._paint(heat)
        self._show(state, place=place)
        return True

    # Answers.

    async def _predict(self, state: PageState) -> Answer:
        if not self._visitor.may(Scope.PREDICT):
            return await self._look(state)
        found = await self._backend.app.predictor.predict(state.kick)
        if isinstance(found, KickserveError):
            answer = await self._look(state)
            return answer._replace(note=self._messages("not_stored_error", why=found))
        return Answer(
            found.prediction, found.interval, found.warnings, self._messages("stored"), recorded=True
        )

    async def _look(self, state: PageState) -> Answer:
        served, row = self._backend.served, state.row
        probability, low, high = (await served.score(row[np.newaxis, :]))[0].tolist()
        interval = None if math.isnan(low) else (low, high)
        note = self._messages("preview" if self._visitor.may(Scope.PREDICT) else "not_stored_key")
        warnings = tuple(served.model.warnings(row.tolist()))
        return Answer(probability, interval, warnings, note, recorded=False)

    async def _tee_line(self, state: PageState) -> TeeLine | None:
        return await tee_line(self._backend.served, state) if state.kind == "conversion" else None

    async def _explain(self, state: PageState) -> None:
        with suppress(RuntimeError):  # the visitor may have left
            try:
                found = await explain(self._backend.served, state.row.tolist())
            except KickserveError:
                self._drivers.content = hint(self._messages("no_drivers"))
            else:
                self._drivers.content = pitch_html.drivers(self._messages, found)

    # Display.

    def _show(self, state: PageState, *, place: bool = True) -> None:
        messages, answer = self._messages, self._answer
        self._answer_html.content = pitch_html.answer_html(messages, state, answer)
        self._legend.content = pitch_html.legend(messages, state)
        self._controls.show(state)
        self._decision_card.set_visibility(state.kind == "penalty")
        self._tee_card.set_visibility(state.kind == "conversion")
        self._decision.content = pitch_html.decision(messages, state, answer.probability)
        if self._tee is not None:
            self._tee_html.content = pitch_html.tee(messages, state, self._tee, answer.probability)
        if place:
            self._pitch.run_method("place", self._ball(state), self._tee_mark())

    def _show_failure(self, error: KickserveError) -> None:
        text = escape(self._messages("failed", why=error))
        self._answer_html.content = f"<p class='warning' role='alert'>{text}</p>"

    def _paint(self, heat: HeatMap) -> None:
        picture = None if heat is self._map else heat.picture
        self._map = heat
        self._pitch.run_method("paint", picture, self._contours(heat))

    def _pitch_contents(self) -> dict[str, Any]:
        return {
            "ball": self._ball(self._state),
            "tee": self._tee_mark(),
            "heat": self._map.picture,
            "contours": self._contours(self._map),
        }

    def _ball(self, state: PageState) -> dict[str, Any]:
        text = pitch_html.summary(self._messages, state, self._answer)
        return {**state.spot._asdict(), "distance": state.distance, "text": text}

    def _tee_mark(self) -> dict[str, Any] | None:
        if self._tee is None:
            return None
        best = self._tee.best
        text = self._messages("tee_label", best=self._messages.number(best.out, 1))
        return {**best._asdict(), "text": text}

    def _contours(self, heat: HeatMap) -> list[dict[str, Any]]:
        percent = self._messages.percent
        lines = [
            {**each._asdict(), "name": f"level-{100 * each.level:.0f}", "text": percent(each.level, 0)}
            for each in heat.contours
        ]
        self._pays = _pays_level(self._state)
        if self._pays is not None:
            lines.append({"name": "pays", "path": heat.contour(self._pays).path})
        return lines


def _pays_level(state: PageState) -> float | None:
    """Return the probability on the line within which a penalty pays, where there is one."""
    return state.break_even if state.kind == "penalty" else None


def _spot(args: Any) -> Spot | None:
    """Read a spot from the browser, which may send anything; None where it is not on the pitch."""
    match args:
        case {"x": int() | float() as x, "out": int() | float() as out} if Spot(x, out).on_pitch:
            return Spot(x, out)
    return None
