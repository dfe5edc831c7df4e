"""A model of one's own, from scikit-learn to the page: `python own_model.py kicks.csv`.

It needs `pip install 'kickserve[sklearn,ui]' pandas`, and kicks in order of time with outcomes (`success`).
It writes own.skops. Compare that with the packaged model, then serve it and open the page:

    kickserve model check own.skops --data kicks.csv
    KICKSERVE_MODEL=own.skops kickserve serve
"""

import sys

import pandas as pd
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, log_loss

from kickserve.features import NAMES

kicks = pd.read_csv(sys.argv[1])
# The newest fifth is kept back: a model is to be judged by kicks that came after those it learned from.
old, new = kicks.iloc[: len(kicks) * 4 // 5], kicks.iloc[len(kicks) * 4 // 5 :]

model = HistGradientBoostingClassifier(
    learning_rate=0.05,
    max_leaf_nodes=8,
    min_samples_leaf=50,
    monotonic_cst={"distance": -1, "angle": -1},  # farther out or wider is never easier
)
model.fit(old[list(NAMES)], old["success"])

probability = model.predict_proba(new[list(NAMES)])[:, 1]
print(f"on the newest {len(new):,} kicks")
print(f"Brier score  {brier_score_loss(new['success'], probability):.4f}")
print(f"log loss     {log_loss(new['success'], probability):.4f}")

skops.io.dump(model, "own.skops")
