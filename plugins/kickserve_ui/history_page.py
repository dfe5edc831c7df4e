"""The history page: stored predictions, paged by the store, with outcomes and deletion."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nicegui import ui

from kickserve.plugins import RecordNotFound, Scope, StoreError, canonical
from kickserve.schemas import Record
from kickserve_ui.backend import current_backend
from kickserve_ui.heat_map import colour_of
from kickserve_ui.history import OUTCOMES, Filter
from kickserve_ui.page_state import MINUTES, link_of
from kickserve_ui.rendering import render

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from nicegui.events import GenericEventArguments

    from kickserve_ui.layout import Visitor

# The table is one piece of HTML: an element of NiceGUI for each cell and button takes the event loop 100 ms.
# A click on a button in it sends the button's mark and the id of its row.
_ON_CLICK: Final = """(event) => {
  const button = event.target.closest("button[data-mark]");
  if (button) emit(button.dataset.mark, button.closest("tr").dataset.id);
}"""
_DELETE: Final = "delete"
_MARKS: Final = {"scored": True, "missed": False}
_HEADS: Final = ("when", "chance", "distance", "angle", "side", "minute", "wind", "outcome", "actions")
_ROWS: Final = 25
_GROUP: Final = 500  # records that are read at a time where a filter skips some
_MOST: Final = 5_000  # records that are read for a page
_POLL: Final = 2.0  # seconds between looks for new records


class _Page(NamedTuple):
    """A page of the history."""

    records: list[Record]
    searched: int  # records read for it
    last: str | None  # the id below which the next page begins
    more: bool  # whether there is a next page


class HistoryPage:
    """A visitor's view of the history."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._messages = visitor.messages
        self._client = ui.context.client
        self._service = current_backend().app
        self._filter = Filter()
        self._before: str | None = None  # the page begins below this id; with the newest where it is None
        self._last: str | None = None  # the next page begins below this id
        self._newest: str | None = None
        self._requests = 0  # for pages, so that a slow answer is not shown over a newer one
        self._to_delete: str | None = None

    async def build(self) -> None:
        """Make the page."""
        messages = self._messages
        with ui.element("div").classes("page").props("id=content"):
            ui.html(escape(messages("title_history")), tag="h1", sanitize=False)
            with ui.element("section").classes("card"):
                self._filters()
                self._trouble = ui.label().classes("warning").props("role=alert")
                self._table = ui.html(sanitize=False).classes("scroll").props("tabindex=0")
                self._table.on("click", self._clicked, js_handler=_ON_CLICK)
                with ui.element("div").classes("pager"):
                    self._button("newest", partial(self._go, None)).props("data-go=newest")
                    self._older = self._button("older", self._go_older).props("data-go=older")
        # One dialog for all rows. No handler waits for its answer: a visitor may leave without one.
        with ui.dialog() as self._dialog, ui.element("div").classes("card"):
            ui.label(messages("delete_question"))
            with ui.element("div").classes("marks"):
                self._button("delete", self._delete).props("data-mark=sure")
                self._button("cancel", self._dialog.close)
        await self._show()
        ui.timer(_POLL, self._look_for_new)

    def _filters(self) -> None:
        messages = self._messages
        with ui.element("div").classes("filters"):
            since = ui.input(messages("from"), on_change=lambda event: self._set(since=event.value))
            until = ui.input(messages("to"), on_change=lambda event: self._set(until=event.value))
            for each in (since, until):
                each.props("type=date outlined dense stack-label")
            outcome = ui.select(
                {each: messages(each) for each in OUTCOMES},
                value="any",
                label=messages("outcome"),
                on_change=lambda event: self._set(outcome=event.value),
            )
            outcome.props("outlined dense")
            ui.element("div").classes("grow")
            self._csv = ui.link(messages("csv"), self._csv_link()).classes("button")

    def _button(self, key: str, action: Any) -> ui.button:
        button = ui.button(self._messages(key), on_click=action, color=None)
        return button.props("unelevated no-caps").classes("button")

    def _csv_link(self) -> str:
        return f"/history.csv?{self._filter.query()}"  # NiceGUI puts the path of the mount before it

    async def _set(self, **values: object) -> None:
        self._filter = Filter.read(**{**asdict(self._filter), **values})
        self._csv.props(f'href="{self._csv_link()}"')
        await self._go(None)

    async def _go(self, before: str | None) -> None:
        self._before = before
        await self._show()

    async def _go_older(self) -> None:
        await self._go(self._last)

    async def _look_for_new(self) -> None:
        """Show new records, where the newest are shown."""
        if self._may_read() and self._before is None:
            try:
                changed = await self._read_newest() != self._newest
            except StoreError:
                changed = True
            if changed or self._trouble.visible:
                await self._show()

    def _may_read(self) -> bool:
        """Return whether the visitor's key may read; else the page is made anew, and asks for a key."""
        if may := self._visitor.may(Scope.READ):
            return may
        self._client.run_javascript("location.reload()")
        return False

    async def _read_newest(self) -> str | None:
        await self._service.recorder.flush()
        newest = await self._service.store.page(1)
        return newest[0].id if newest else None

    async def _show(self) -> None:
        if not self._may_read():
            return
        self._requests += 1
        request = self._requests
        try:
            newest = await self._read_newest()
            found = await self._read_page()
        except StoreError:
            found = None
        if request != self._requests:
            return
        self._trouble.set_visibility(found is None)
        if found is None:
            self._trouble.text = self._messages("store_away")
            return
        self._newest, self._last = newest, found.last
        self._older.set_enabled(found.more)
        self._table.content = render(
            "history",
            self._messages,
            heads=_HEADS,
            records=found.records,
            marks=_MARKS,
            minutes=MINUTES,
            colour_of=colour_of,
            link_of=link_of,
            may_mark=self._visitor.may(Scope.PREDICT),
            may_delete=self._visitor.may(Scope.ADMIN),
            searched=found.searched if found.searched >= _MOST else 0,
        )

    async def _read_page(self) -> _Page:
        wanted, searched, before = self._filter, 0, self._before
        found: list[Record] = []
        size = _ROWS + 1 if wanted.outcome == "any" else _GROUP
        while len(found) <= _ROWS and searched < _MOST:
            group = await self._service.store.page(size, before=before, since=wanted.begin, until=wanted.end)
            searched += len(group)
            found += [each for each in group if wanted.takes(each)]
            if len(group) < size:
                break
            before = group[-1].id
        shown = found[:_ROWS]
        full = len(found) > _ROWS
        return _Page(shown, searched, shown[-1].id if full else before, full or searched >= _MOST)

    async def _clicked(self, event: GenericEventArguments) -> None:
        match event.args:  # from the browser: anything may come
            case [str(mark), str(given)] if record_id := canonical(given):
                if mark == _DELETE:
                    self._to_delete = record_id
                    self._dialog.open()
                elif mark in _MARKS and self._visitor.may(Scope.PREDICT):
                    await self._change(self._service.recorder.set_outcome(record_id, success=_MARKS[mark]))

    async def _delete(self) -> None:
        self._dialog.close()
        record_id, self._to_delete = self._to_delete, None
        if record_id is not None and self._visitor.may(Scope.ADMIN):
            await self._change(self._service.recorder.delete(record_id))

    async def _change(self, change: Awaitable[None]) -> None:
        try:
            await change
        except RecordNotFound:
            ui.notify(self._messages("gone"), type="warning")
        except StoreError:
            ui.notify(self._messages("store_away"), type="warning")
        await self._show()
