"""Simulated kicks to train on, also of kickers whose ability stays the same."""

from __future__ import annotations

import numpy as np

from kickserve.documents import expit
from kickserve_data.simulate import ABILITY_SD, logit, simulate
from kickserve_train.data import Known
from kickserve_train.teach import Order


def known_of(size, seed):
    kicks = simulate(size, seed)
    return Known(kicks.matrix, kicks.success)


def of_kickers(count, each, seed, spread=ABILITY_SD):
    """Simulated kicks of kickers whose ability stays the same."""
    rng = np.random.default_rng(seed)
    matrix = simulate(count * each, seed).matrix
    kicker = rng.permutation(np.repeat(np.arange(count), each))
    ability = rng.normal(0, spread, count)[kicker]
    return Known(matrix, rng.random(len(matrix)) < expit(logit(matrix) + ability), kicker)


def order(**changes):
    return Order(**({"name": "test", "data": "simulated", "seed": 1, "folds": 3} | changes))
