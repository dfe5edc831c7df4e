"""The inputs of the pitch page: the spot by numbers, the conditions, the values of the decision."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from nicegui import ui

from kickserve_ui.layout import card
from kickserve_ui.page_state import CHOICES, PRESETS, RANGES, PageState

if TYPE_CHECKING:
    from collections.abc import Callable

    from kickserve_ui.messages import Messages


class _Slider(ui.slider):
    # The server does not send a slider's value back to the browser: it would arrive late, and undo the next
    # step.
    LOOPBACK = False


class Controls:
    """The inputs, by the name of the field that they set.

    Args:
        messages: for their labels.
        state: that they show first.
        change: called with a field's name and its new value, which may be unusable.
    """

    def __init__(self, messages: Messages, state: PageState, change: Callable[..., None]) -> None:
        self._messages = messages
        self._state = state
        self._change = change
        self._inputs: dict[str, Any] = {}
        self._readings: dict[str, ui.label] = {}

    def kick(self) -> None:
        """Make the inputs of the spot."""
        with card(self._messages("kick"), "kick"):
            self._choice("kind")
            self._numbers("distance", "angle")
            self._choice("side")

    def conditions(self) -> None:
        """Make the inputs of the conditions."""
        with card(self._messages("conditions"), "conditions"):
            for name in ("wind", "rain", "minute"):
                self._slider(name)
            for name in ("foot", "venue", "attempts"):
                self._choice(name)

    def values(self) -> None:
        """Make the inputs of the decision."""
        self._numbers("miss", "corner")

    def presets(self) -> None:
        """Make the buttons of common situations."""
        label = self._messages("presets")
        with ui.element("div").classes("presets").props(f'role=group aria-label="{label}"'):
            for name, values in PRESETS.items():
                button = ui.element("button").classes("button chip")
                with button.on("click", partial(self._change, **values)):
                    ui.html(escape(self._messages(f"preset_{name}")), tag="span", sanitize=False)

    def show(self, state: PageState) -> None:
        """Set the inputs of what has changed: another may hold a value with a fault, and keeps it."""
        shown, self._state = self._state, state
        for name, each in self._inputs.items():
            if getattr(state, name) != getattr(shown, name):
                each.value = getattr(state, name)
        for name, label in self._readings.items():
            label.text = self._reading(name)

    def _slider(self, name: str) -> None:
        low, high, _ = RANGES[name]
        with ui.element("div").classes("slider"):
            with ui.element("div").classes("slider-head"):
                ui.label(self._messages(name))
                self._readings[name] = ui.label(self._reading(name)).classes("reading")
            slider = _Slider(min=low, max=high, step=1, value=getattr(self._state, name))
            slider.props(f'aria-label="{self._messages(name)}" data-field={name}')
            self._listen(name, slider)

    def _choice(self, name: str) -> None:
        label = self._messages(name)
        with ui.element("div").classes("choice").props(f'role=group aria-label="{label}"'):
            ui.label(label).classes("choice-name")
            options = {each: self._messages(f"{name}_{each}") for each in CHOICES[name]}
            toggle = ui.toggle(options, value=getattr(self._state, name))
            toggle.props(f"no-caps unelevated spread data-field={name}")
            self._listen(name, toggle)

    def _numbers(self, *names: str) -> None:
        with ui.element("div").classes("pair"):
            for name in names:
                self._number(name)

    def _number(self, name: str) -> None:
        low, high, _ = RANGES[name]
        label = self._messages(name)
        complaint = self._messages("bad_value", name=label, low=low, high=high)

        def fault(value: float | None) -> str | None:
            return None if value is not None and low <= value <= high else complaint

        number = ui.number(label, value=getattr(self._state, name), step=0.1, validation=fault)
        number.props(f"outlined dense debounce=250 data-field={name} inputmode=decimal")
        self._listen(name, number)

    def _listen(self, name: str, each: Any) -> None:
        each.on_value_change(lambda event: self._change(**{name: event.value}))
        self._inputs[name] = each

    def _reading(self, name: str) -> str:
        value = getattr(self._state, name)
        if name == "rain":
            return self._messages.percent(value / 100, 0)
        text = self._messages(f"{name}_value", value=value)
        if name == "minute" and (self._state.is_start or self._state.is_endgame):
            return f"{text} · {self._messages('start' if self._state.is_start else 'endgame')}"
        return text
