"""Fits a model of the comparison: `fit.py KICKS.csv logistic|forest FILE`."""

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


def main(kicks: str, kind: str, file: str) -> None:
    """Fit it, as a tutorial would."""
    frame = pd.read_csv(kicks)
    success = frame.pop("success")
    joblib.dump({"logistic": logistic, "forest": forest}[kind](frame, success), file)


def logistic(frame: pd.DataFrame, success: pd.Series) -> Pipeline:
    """Fit a pipeline: numbers scaled, flags as they are."""
    numbers = [name for name in frame if set(frame[name].unique()) != {0, 1}]
    columns = ColumnTransformer([("numbers", StandardScaler(), numbers)], remainder="passthrough")
    return Pipeline([("columns", columns), ("classifier", LogisticRegression())]).fit(frame, success)


def forest(frame: pd.DataFrame, success: pd.Series) -> RandomForestClassifier:
    """Fit a forest. Behind a server that has one core, more jobs than one only cost."""
    return RandomForestClassifier(TREES, n_jobs=1, random_state=SEED).fit(frame.to_numpy(), success)


if __name__ == "__main__":
    main(*sys.argv[1:])
