"""Carries out changes of records that the store holds already."""

from __future__ import annotations

from itertools import groupby, islice
from typing import TYPE_CHECKING, Final

from kickserve.operations import Delete, Judge
from kickserve.store import TakesOutcomes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kickserve.store import Store

_TOGETHER: Final = 500  # outcomes: some milliseconds of the event loop, and of others who wait to write


async def carry_out(store: Store, changes: Iterable[Delete | Judge]) -> set[str]:
    """Carry changes out in their order, outcomes together where the store takes them so.

    Returns:
        The ids under which the store has no record.

    Raises:
        StoreUnavailable: it is away; some may have been carried out, and all may be once more.
    """
    unknown: set[str] = set()
    for kind, run in groupby(changes, type):
        if kind is Judge and isinstance(store, TakesOutcomes):
            outcomes = (each for each in run if isinstance(each, Judge))
            while some := [*islice(outcomes, _TOGETHER)]:
                unknown |= await store.set_outcomes(some)
        else:
            unknown |= {each.id for each in run if not await _carry_out_one(store, each)}
    return unknown


async def _carry_out_one(store: Store, change: Delete | Judge) -> bool:
    if isinstance(change, Delete):
        return await store.delete(change.id)
    return await store.set_outcome(change.id, success=change.success, at=change.at)
