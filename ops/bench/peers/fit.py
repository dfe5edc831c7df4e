"""Fits the models of the peers: `fit.py KICKS.csv LOGISTIC FOREST` writes the last two."""

from __future__ import annotations

import sys

import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

TREES = 100
SEED = 7


def main(kicks: str, logistic: str, forest: str) -> None:
    """Fit both, as a tutorial would: numbers scaled, flags as they are."""
    frame = pd.read_csv(kicks)
    success = frame.pop("success")
    numbers = [name for name in frame if set(frame[name].unique()) != {0, 1}]
    columns = ColumnTransformer([("numbers", StandardScaler(), numbers)], remainder="passthrough")
    pipeline = Pipeline([("columns", columns), ("classifier", LogisticRegression())])
    joblib.dump(pipeline.fit(frame, success), logistic)
    # Behind a server that has one core, more jobs than one only cost.
    trees = RandomForestClassifier(TREES, n_jobs=1, random_state=SEED)
    joblib.dump(trees.fit(frame.to_numpy(), success), forest)


if __name__ == "__main__":
    main(*sys.argv[1:])
