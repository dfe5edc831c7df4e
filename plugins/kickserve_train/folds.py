"""Divides kicks into folds: what belongs together stays together, the same for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kickserve_train.data import Known

SEARCHED: Final = 50_000
"""Kicks that families of models are compared on, at most."""


def groups_of(known: Known) -> NDArray[np.intp]:
    """Number what must not be divided, shape (n,): the kicks of a kicker, and kicks that are the same.

    A kick that stands there twice would otherwise be learnt in one fold and asked for in another.
    """
    if known.kicker is not None:
        return known.kicker
    return np.unique(known.matrix, axis=0, return_inverse=True)[1].ravel()


def folds_of(groups: NDArray[np.intp], count: int, seed: int) -> NDArray[np.intp]:
    """Give each kick the number of its fold.

    Args:
        groups: shape (n,), from 0.
        count: of the folds.
        seed: of the order in which groups fill the folds, one after the other.

    Returns:
        Shape (n,), 0 to `count` - 1; a group is in one fold as a whole.
    """
    sizes = np.bincount(groups)
    order = np.random.default_rng([seed, 1]).permutation(len(sizes))
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    fold_of_group = np.empty(len(sizes), dtype=np.intp)
    fold_of_group[order] = np.minimum(middle * count / len(groups), count - 1).astype(np.intp)
    result: NDArray[np.intp] = fold_of_group[groups]
    return result


def sample_of(groups: NDArray[np.intp], most: int, seed: int) -> NDArray[np.intp]:
    """Choose whole groups at random until they hold about `most` kicks; positions in their order."""
    if len(groups) <= most:
        return np.arange(len(groups))
    sizes = np.bincount(groups)
    order = np.random.default_rng([seed, 2]).permutation(len(sizes))
    chosen = order[: max(int(np.searchsorted(np.cumsum(sizes[order]), most, side="right")), 1)]
    return np.flatnonzero(np.isin(groups, chosen))
