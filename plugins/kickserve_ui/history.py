"""The history page: kept predictions, paged by the store; outcomes and deletes go through the recorder."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nicegui import ui

from kickserve.errors import RecordNotFound, StoreError
from kickserve.ids import canonical
from kickserve.plugins import Scope
from kickserve.schemas import Record
from kickserve_ui import PATH
from kickserve_ui.history_filter import OUTCOMES, Filter
from kickserve_ui.history_table import DELETE, MARKS, ON_CLICK, table
from kickserve_ui.site import current

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from nicegui.events import GenericEventArguments

    from kickserve_ui.frame import Visit

_ROWS: Final = 25
_GROUP: Final = 500  # records that are asked for at a time where a filter passes over some
_MOST: Final = 5_000  # that are looked through for a page
_EVERY: Final = 2.0  # seconds between looks for new ones


class _Page(NamedTuple):
    """A page of the history.

    Attributes:
        records: what it shows.
        searched: how many were looked through for it.
        last: the id below which the next page begins.
        more: whether there is one.
    """

    records: list[Record]
    searched: int
    last: str | None
    more: bool


class History:
    """One visitor's view of the history.

    Args:
        visit: who looks, and in which language.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._words = visit.words
        self._service = current().service
        self._filter = Filter()
        self._before: str | None = None  # the page begins below this id; the newest where it is None
        self._newest: str | None = None
        self._last: str | None = None  # the next page begins below this id
        self._asked_for = 0  # pages, by now
        self._asked: str | None = None  # of this record, whether it is to be deleted

    async def build(self) -> None:
        """Make the page."""
        words = self._words
        with ui.element("div").classes("page").props("id=content"):
            ui.html(escape(words("title_history")), tag="h1", sanitize=False)
            with ui.element("section").classes("card"):
                self._filters()
                self._trouble = ui.label().classes("warning").props("role=alert")
                self._table = ui.html(sanitize=False).classes("scroll").props("tabindex=0")
                self._table.on("click", self._clicked, js_handler=ON_CLICK)
                with ui.element("div").classes("pager"):
                    self._button("newest", partial(self._go, None)).props("data-go=newest")
                    self._older = self._button("older", self._go_older).props("data-go=older")
        self._make_question()
        await self._show()
        ui.timer(_EVERY, self._look_for_new)

    def _make_question(self) -> None:
        # One for all rows, and nothing waits for the answer: a visitor may leave without one.
        with ui.dialog() as self._question, ui.element("div").classes("card"):
            ui.label(self._words("delete_question"))
            with ui.element("div").classes("marks"):
                self._button("delete", self._delete).props("data-mark=sure")
                self._button("cancel", self._question.close)

    def _filters(self) -> None:
        words = self._words
        with ui.element("div").classes("filters"):
            since = ui.input(words("from"), on_change=lambda event: self._set(since=event.value))
            until = ui.input(words("to"), on_change=lambda event: self._set(until=event.value))
            for each in (since, until):
                each.props("type=date outlined dense stack-label")
            options = {each: words(each) for each in OUTCOMES}
            outcome = ui.select(
                options,
                value="any",
                label=words("outcome"),
                on_change=lambda event: self._set(outcome=event.value),
            )
            outcome.props("outlined dense")
            ui.element("div").classes("grow")
            self._csv = ui.link(words("csv"), self._csv_target()).classes("button")

    async def _set(self, **values: object) -> None:
        self._filter = Filter.read(**{**asdict(self._filter), **values})
        self._csv.props(f'href="{self._csv_target()}"')
        await self._go(None)

    def _csv_target(self) -> str:
        return f"/history.csv?{self._filter.query()}"  # NiceGUI puts the path of the page before it

    async def _go(self, before: str | None) -> None:
        self._before = before
        await self._show()

    async def _go_older(self) -> None:
        await self._go(self._last)

    async def _look_for_new(self) -> None:
        """Show what has come in since, where the newest are shown."""
        if not self._visit.may(Scope.READ):
            ui.navigate.reload()  # the key has been taken away: the page asks for another
            return
        if self._before is not None:
            return
        try:
            await self._service.recorder.flush()
            newest = await self._service.store.page(1)
        except StoreError:
            await self._show()  # says so
            return
        if (newest[0].id if newest else None) != self._newest or self._trouble.visible:
            await self._show()

    async def _show(self) -> None:
        self._asked_for += 1
        this = self._asked_for
        try:
            await self._service.recorder.flush()
            newest = await self._service.store.page(1) if self._before is None else None
            found = await self._page()
        except StoreError:
            found = None
        if this != self._asked_for:
            return  # another page has been asked for meanwhile, and may have come before
        self._trouble.set_visibility(found is None)
        if found is None:
            self._trouble.text = self._words("store_away")
            return
        if newest is not None:
            self._newest = newest[0].id if newest else None
        self._last = found.last
        self._older.set_enabled(found.more)
        note = self._hint("searched", count=found.searched) if found.searched >= _MOST else ""
        self._table.content = self._rows(found.records) + note

    def _rows(self, records: list[Record]) -> str:
        may = self._visit.may
        if not records:
            return self._hint("nothing")
        return table(
            self._words, records, f"{PATH}/", may_judge=may(Scope.PREDICT), may_delete=may(Scope.ADMIN)
        )

    def _hint(self, key: str, **values: Any) -> str:
        return f"<p class='hint'>{escape(self._words(key, **values))}</p>"

    async def _page(self) -> _Page:
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

    def _button(self, key: str, action: Any) -> ui.button:
        button = ui.button(self._words(key), on_click=action, color=None)
        return button.props("unelevated no-caps").classes("button")

    async def _clicked(self, event: GenericEventArguments) -> None:
        match event.args:  # from the browser: they may be anything
            case [str(mark), str(given)] if record_id := canonical(given):
                if mark == DELETE:
                    self._ask(record_id)
                elif mark in MARKS:
                    await self._judge(record_id, success=MARKS[mark])

    async def _judge(self, record_id: str, *, success: bool) -> None:
        if self._visit.may(Scope.PREDICT):
            await self._carry_out(self._service.recorder.set_outcome(record_id, success=success))

    def _ask(self, record_id: str) -> None:
        self._asked = record_id
        self._question.open()

    async def _delete(self) -> None:
        self._question.close()
        record_id, self._asked = self._asked, None
        if record_id is not None and self._visit.may(Scope.ADMIN):
            await self._carry_out(self._service.recorder.delete(record_id))

    async def _carry_out(self, change: Awaitable[None]) -> None:
        try:
            await change
        except RecordNotFound:
            ui.notify(self._words("gone"), type="warning")
        except StoreError:
            ui.notify(self._words("store_away"), type="warning")
        await self._show()
