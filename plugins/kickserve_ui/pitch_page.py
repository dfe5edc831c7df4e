"""The pitch page. It works in the browser (`static/board.js`): looking records nothing, its buttons do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kickserve_data.simulate import TEE_ASIDE, TEE_BACK, TEE_SPREAD
from kickserve_ui.app_page import show_app
from kickserve_ui.backend import current_backend
from kickserve_ui.calls import rights_of
from kickserve_ui.heat_map import GRADIENT, STOPS, about
from kickserve_ui.page_state import CHOICES, PRESETS, RANGES, VALUES, WIDTH, PageState

if TYPE_CHECKING:
    from kickserve_ui.layout import Visitor


def show_pitch(visitor: Visitor) -> None:
    """Make the page; the browser reads the kick from its link."""
    show_app(visitor.messages, "board.js", {**board(), "rights": rights_of(visitor)})


def show_comparison(visitor: Visitor) -> None:
    """Make the page on which the current model stands beside another one."""
    others = {name: about(model.card) for name, model in current_backend().others.models().items()}
    boot = {**board(), "rights": rights_of(visitor), "others": others}
    show_app(visitor.messages, "compare.js", boot, classes="page")


def board() -> dict[str, Any]:
    """Return what a page with a pitch needs to know of rugby, and of the model."""
    return {
        "ranges": RANGES,
        "choices": CHOICES,
        "presets": PRESETS,
        "defaults": {**asdict(PageState()), "line": WIDTH / 2, "back": TEE_BACK[0], **VALUES},
        "usual": {"aside": TEE_ASIDE, "back": TEE_BACK, "spread": TEE_SPREAD},
        "stops": STOPS,
        "gradient": GRADIENT,
        "model": about(current_backend().served.model.card),
        "guarded": current_backend().sessions.guarded,
    }
