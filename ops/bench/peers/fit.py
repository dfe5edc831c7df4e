"""Fits what the peers serve to simulated kicks: `fit.py LOGISTIC FOREST` writes the files."""

from __future__ import annotations

import sys
from typing import Final

import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from kickserve.features import FLAGS, NAMES
from kickserve_data.simulate import simulate

KICKS: Final = 20_000
TREES: Final = 100
SEED: Final = 7


def logistic() -> Pipeline:
    """Return what a tutorial would make of a table of kicks: numbers scaled, flags as they are."""
    numbers = [name for name in NAMES if name not in FLAGS]
    columns = ColumnTransformer([("numbers", StandardScaler(), numbers)], remainder="passthrough")
    return Pipeline([("columns", columns), ("classifier", LogisticRegression())])


def main(logistic_file: str, forest_file: str) -> None:
    """Fit both models, and write them."""
    kicks = simulate(KICKS, SEED)
    frame = pd.DataFrame(kicks.matrix, columns=list(NAMES))
    joblib.dump(logistic().fit(frame, kicks.success), logistic_file)
    # Behind a server that has one core, more jobs than one only cost.
    forest = RandomForestClassifier(TREES, n_jobs=1, random_state=SEED)
    joblib.dump(forest.fit(kicks.matrix, kicks.success), forest_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
