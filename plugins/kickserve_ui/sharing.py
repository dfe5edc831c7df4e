"""A kick to show to others: its card for chats, its page for frames, and the tags that lead to the card.

They tell what the pitch tells anyone, with a key or without, and of that the one kick in their link alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import numpy as np
from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from kickserve.plugins import InvalidInput, KickserveError
from kickserve_ui.backend import current_backend
from kickserve_ui.heat_map import picture, score
from kickserve_ui.messages import LANGUAGES, messages_for, messages_in
from kickserve_ui.page_state import DEPTH, WIDTH, read_link
from kickserve_ui.rendering import ROOT, notice_page, render, static

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

    from kickserve_ui.messages import Messages
    from kickserve_ui.page_state import PageState

_FRESH: Final = 300  # seconds for which a chat may show a card without asking again
_NOT_MODIFIED: Final = 304
_LONGEST: Final = 42  # characters of a kicker's name on a card
_UNFIT: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # for XML 1.0
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors *"
)


@dataclass(frozen=True)
class ShownKick:
    """A kick and the answer to it, in the words of a language.

    Attributes:
        state: the kick.
        kind: `penalty`, `conversion` or `kick`.
        messages: of the language.
        scores: probability, low and high; NaN for the last two where the model has no interval.
    """

    state: PageState
    kind: str
    messages: Messages
    scores: tuple[float, float, float]

    @property
    def what(self) -> str:
        """The kick in words: "A 41 m penalty"."""
        text = self.messages(f"share_{self.kind}", distance=self.messages.number(self.state.distance))
        return re.sub(r"^A(?= (8|11|18|8\d) )", "An", text)  # eight, eleven, eighteen, eighty

    @property
    def place(self) -> str:
        """Where from: "from the left"."""
        return self.messages(f"share_{self.state.side if round(self.state.angle) else 'front'}")

    @property
    def often(self) -> str:
        """The probability in words: "About 7 in 10"."""
        return self.messages.often(self.scores[0])

    @property
    def sentence(self) -> str:
        """All of it: "A 41 m penalty from the left: about 7 in 10"."""
        often = self.often[0].lower() + self.often[1:]
        return self.messages("share_sentence", what=self.what, place=self.place, often=often)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The model's interval, if it has one."""
        low, high = self.scores[1:]
        return None if math.isnan(low) else (low, high)


def add_sharing(app: FastAPI) -> None:
    """Add card and page for frames to the application of the pages."""
    app.get("/card.png", response_model=None)(_card)
    app.get("/embed", response_model=None)(_embed)


async def tags_of(request: Request) -> str:
    """Return the tags (Open Graph) by which chats show the kick of a link to the pitch as a card."""
    try:
        kick = await _shown(request)
    except KickserveError:
        return ""  # the page opens all the same, and says what is wrong
    root, query = address_of(request), dict(request.query_params)
    # The revision gives the card another address after a reload of the model: chats keep pictures.
    more = {"language": kick.messages.language, "revision": current_backend().served.model.card.revision}
    values = {
        "title": kick.sentence if query else kick.messages("title_pitch"),
        "kick": kick,
        "page": _link(root, "/", query),
        "picture": _link(root, "/card.png", {**query, **more}),
        "description": _details(kick),
    }
    return render("share_tags", kick.messages, **values)


def address_of(request: Request) -> str:
    """Return the address of the pages, as a browser has it: behind a proxy too."""
    hosts = request.headers.get("x-forwarded-host") or request.headers.get("host", "")
    return f"{request.url.scheme}://{hosts.partition(',')[0].strip()}{ROOT.get()}"


async def _card(request: Request) -> Response:
    """Return the card of the kick in a link, as PNG; nothing is recorded."""
    svg = await _drawing(await _shown(request))
    digest = hashlib.sha256(svg.encode()).hexdigest()[:32]
    headers = {"ETag": f'"{digest}"', "Cache-Control": f"public, max-age={_FRESH}"}
    if digest in request.headers.get("if-none-match", ""):
        return Response(status_code=_NOT_MODIFIED, headers=headers)
    backend = current_backend()
    return Response(await backend.cards.draw(svg, digest), headers=headers, media_type="image/png")


async def _embed(request: Request) -> Response:
    """Return pitch and number of the kick in a link, for frames of any page; nothing is recorded."""
    messages = _messages(request)
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": f"public, max-age={_FRESH}"}
    try:
        kick = await _shown(request)
    except InvalidInput as error:
        page = notice_page(messages, messages("bad_kick"), str(error))
        return HTMLResponse(page, error.status, headers={**headers, "Cache-Control": "no-store"})
    values = {
        **await _pitch(kick),
        "kick": kick,
        "page": _link(address_of(request), "/", request.query_params),
    }
    return HTMLResponse(render("embed", messages, details=_details(kick), **values), headers=headers)


async def _shown(request: Request) -> ShownKick:
    """Answer the kick of a link, without a record.

    Raises:
        InvalidInput: a value of the link is none that its field takes.
        PredictionFailed: the model failed.
    """
    backend = current_backend()
    state, kind = read_link(request.query_params)
    rows, kicker = state.row[np.newaxis, :], state.kicker or None
    scores = await score(backend.served, rows, backend.app.predictor.learner, kicker)
    return ShownKick(state, kind, _messages(request), tuple(scores[0].tolist()))


def _messages(request: Request) -> Messages:
    """Return the messages in the language of a link, or else of its visitor: robots of chats have none."""
    language = request.query_params.get("language", "")
    return next((messages_in(each) for each in LANGUAGES if each == language), messages_for(request))


async def _pitch(kick: ShownKick) -> dict[str, Any]:
    """Return what `templates/pitch.svg` draws."""
    backend = current_backend()
    found = await backend.maps.get(backend.served, kick.state, backend.app.predictor.learner)
    x, out = kick.state.spot
    return {
        "heat": f"data:image/png;base64,{b64encode(await asyncio.to_thread(picture, found)).decode()}",
        "lines": static("pitch.svg"),
        "x": round(min(max(x, 0), WIDTH), 2),
        "out": round(min(max(out, 0), DEPTH), 2),
    }


async def _drawing(kick: ShownKick) -> str:
    kicker, lines = kick.state.kicker, [kick.what, kick.place]
    if len(kicker) > _LONGEST:
        kicker = f"{kicker[: _LONGEST - 1]}…"
    number = kick.messages.percent(kick.scores[0])
    footer = f"{_model(kick.messages)} · {kick.messages.day(datetime.now(UTC))}"
    values = {
        "lines_of_text": lines,
        "size": _fitting(max(map(len, lines)), 46),
        "number": number,
        "number_size": _fitting(len(number), 200),
        "often": kick.often,
        "interval": kick.interval,
        "probability": kick.scores[0],
        "kicker": kicker,
        "kicker_size": _fitting(len(kicker), 32),
        "footer": footer,
        "footer_size": _fitting(len(footer), 24),
        "favicon": static("favicon.svg"),
    }
    return _UNFIT.sub("", render("card.svg", kick.messages, **values, **await _pitch(kick)))


def _fitting(length: int, largest: int) -> int:
    """Return the size of a font in which a text of this length fits beside the pitch."""
    return min(largest, int(930 / max(length, 1)))


def _details(kick: ShownKick) -> str:
    """Return the interval and the kicker, in words."""
    percent, messages = kick.messages.percent, kick.messages
    parts = [kick.state.kicker] if kick.state.kicker else []
    if kick.interval is not None:
        low, high = map(percent, kick.interval)
        parts.append(
            messages("interval_one", low=low) if low == high else messages("interval", low=low, high=high)
        )
    return " · ".join([*parts, _model(messages)])


def _model(messages: Messages) -> str:
    return messages("share_model", name=current_backend().served.model.card.name)


def _link(root: str, path: str, query: Mapping[str, str]) -> str:
    return f"{root}{path}{'?' if query else ''}{urlencode(query)}"
