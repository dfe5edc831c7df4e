"""kickserve with a random forest behind it: `forest.py PORT FOREST`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import sklearn

from kickserve.app import create_app
from kickserve.features import NAMES
from kickserve.model import Answer
from kickserve.schemas import ModelCard
from kickserve.server import bind, run
from kickserve.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Forest:
    """A `kickserve.model.Model` around a scikit-learn classifier."""

    def __init__(self, classifier: Any) -> None:
        self._classifier = classifier
        self.card = ModelCard(
            name="forest",
            revision=f"scikit-learn {sklearn.__version__}",
            kind="forest",
            source="the benchmark",
            description="A random forest that the benchmark fits to simulated kicks.",
            features=list(NAMES),
            domain={},
            interval=None,
            trained_on={},
            metrics={},
        )

    def predict(self, matrix: NDArray[np.float64]) -> Answer:
        """Answer n kicks."""
        return Answer(self._classifier.predict_proba(matrix)[:, 1], None, None)

    def warnings(self, row: Sequence[float]) -> list[str]:  # noqa: ARG002  the protocol gives it one
        """Warn of nothing."""
        return []

    def out_of_domain(self, matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Find nothing unusual."""
        return np.zeros(len(matrix), dtype=bool)


def main(port: str, file: str) -> None:
    """Serve until SIGTERM, with all else as the environment says."""
    settings = replace(Settings.load(), port=int(port))
    with bind(settings) as listener:
        app = create_app(settings, model=Forest(joblib.load(file)))
        run(app, settings, [listener], lambda: None)


if __name__ == "__main__":
    main(*sys.argv[1:])
