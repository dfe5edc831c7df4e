"""What can be set on the pitch page: the place by numbers, the conditions, the values of a decision."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui

from kickserve_ui.frame import card
from kickserve_ui.scene import MINUTES, PRESETS, Scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from kickserve_ui.words import Words

_SLIDERS: Final = {"wind": (0, 50), "rain": (0, 100), "minute": (0, MINUTES)}
_CHOICES: Final = {
    "kind": ("penalty", "conversion"),
    "side": ("left", "right"),
    "foot": ("left", "right"),
    "venue": ("home", "away"),
    "attempts": ("yes", "no"),
}
_NUMBERS: Final = {
    "distance": (2, 100, 0.1),
    "angle": (0, 90, 0.1),
    "miss": (0, 7, 0.1),
    "corner": (0, 7, 0.1),
}


class _Slider(ui.slider):
    # The server does not send back what the browser told it: it would come late, and undo the next step.
    LOOPBACK = False


class Controls:
    """The inputs, by the name of the scene's field that they set.

    Args:
        words: for their labels.
        scene: what they show first.
        change: called with a field's name and its new value, which may be one that can't be used.
    """

    def __init__(self, words: Words, scene: Scene, change: Callable[..., None]) -> None:
        self._words = words
        self._scene = scene
        self._change = change
        self._inputs: dict[str, Any] = {}
        self._readings: dict[str, ui.label] = {}

    def kick(self) -> None:
        """Make the inputs of the place."""
        with card(self._words("kick"), "kick"):
            self._choice("kind")
            with ui.element("div").classes("pair"):
                self._number("distance")
                self._number("angle")
            self._choice("side")

    def conditions(self) -> None:
        """Make the inputs of the conditions."""
        with card(self._words("conditions"), "conditions"):
            for name in _SLIDERS:
                self._slider(name)
            for name in ("foot", "venue", "attempts"):
                self._choice(name)

    def values(self) -> None:
        """Make the inputs of the decision."""
        with ui.element("div").classes("pair"):
            self._number("miss")
            self._number("corner")

    def presets(self) -> None:
        """Make the buttons of the situations that people think of."""
        with ui.element("div").classes("presets").props(f'role=group aria-label="{self._words("presets")}"'):
            for name, values in PRESETS.items():
                button = (
                    ui.element("button").classes("button chip").on("click", partial(self._change, **values))
                )
                with button:
                    ui.html(escape(self._words(f"preset_{name}")), tag="span", sanitize=False)

    def show(self, scene: Scene) -> None:
        """Have the inputs show a scene."""
        self._scene = scene
        for name, each in self._inputs.items():
            each.value = getattr(scene, name)
        for name, label in self._readings.items():
            label.text = self._reading(name)

    def _slider(self, name: str) -> None:
        low, high = _SLIDERS[name]
        with ui.element("div").classes("slider"):
            with ui.element("div").classes("slider-head"):
                ui.label(self._words(name))
                self._readings[name] = ui.label(self._reading(name)).classes("reading")
            slider = _Slider(min=low, max=high, step=1, value=getattr(self._scene, name))
            slider.props(f'aria-label="{self._words(name)}" data-field={name}')
            self._listen(name, slider)

    def _choice(self, name: str) -> None:
        with ui.element("div").classes("choice").props(f'role=group aria-label="{self._words(name)}"'):
            ui.label(self._words(name)).classes("choice-name")
            options = {each: self._words(f"{name}_{each}") for each in _CHOICES[name]}
            toggle = ui.toggle(options, value=getattr(self._scene, name))
            toggle.props(f"no-caps unelevated spread data-field={name}")
            self._listen(name, toggle)

    def _number(self, name: str) -> None:
        low, high, step = _NUMBERS[name]
        complaint = self._words("bad_value", name=self._words(name), low=low, high=high)

        def fault(value: float | None) -> str | None:
            return None if value is not None and low <= value <= high else complaint

        number = ui.number(self._words(name), value=getattr(self._scene, name), step=step, validation=fault)
        number.props(f"outlined dense debounce=250 data-field={name} inputmode=decimal")
        self._listen(name, number)

    def _listen(self, name: str, each: Any) -> None:
        each.on_value_change(lambda event: self._change(**{name: event.value}))
        self._inputs[name] = each

    def _reading(self, name: str) -> str:
        value = getattr(self._scene, name)
        if name == "rain":
            return self._words.percent(value / 100, 0)
        text = self._words(f"{name}_value", value=value)
        if name == "minute" and (self._scene.is_start or self._scene.is_endgame):
            return f"{text} · {self._words('start' if self._scene.is_start else 'endgame')}"
        return text
