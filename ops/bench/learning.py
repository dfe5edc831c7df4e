"""Measures what is learned from outcomes, on simulated kicks: the alarm, learning, and trained models.

Each part draws kicks by `kickserve_data.simulate`, asks the packaged model, and measures without a service.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product, repeat
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from kickserve.documents import mean_shrink
from kickserve.features import INDEX, NAMES, columns
from kickserve.linear import expand, load_default
from kickserve.loading import load_model
from kickserve.model import predict
from kickserve.plugins import discover
from kickserve.settings import Settings
from kickserve_data.simulate import ABILITY_SD, COEFFICIENTS, logit, simulate
from kickserve_data.writer import open_writer
from kickserve_scores.alarm import LEVEL, Alarm
from kickserve_train.checks import check
from kickserve_train.dataset import Dataset
from kickserve_train.serialization import model_of
from kickserve_train.training import TrainingConfig, TrainingRun
from ops.bench import common
from ops.commands import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from kickserve_train.serialization import Document
    from ops.commands import Row

    World = Callable[[NDArray[np.float64]], NDArray[np.float64]]

LONG: Final = 100_000  # outcomes without a change
QUIET: Final = 10_000  # outcomes before a late change
SEASON: Final = 25_000  # kicks of a replay
KICKERS: Final = 150
WEAKER: Final = -0.2  # log-odds of all kicks
SIZES: Final = (500, 2_000, 10_000)  # kicks to train on
FEW: Final = (30, 100, 200, 500)
FRESH: Final = 10_000  # kicks that the trained models had not seen
OF_A_KICKER: Final = 50
NEAR: Final = 15.0  # metres
HALF: Final = 0.5  # a step of the knots
WORST: Final = 0.0015  # log loss
# Log-odds of the world that follows no formula, at some metres (rows) and degrees (columns).
NET_DISTANCES: Final = (5.0, 15.0, 25.0, 35.0, 45.0, 60.0)
NET_ANGLES: Final = (0.0, 20.0, 40.0, 60.0, 80.0)
NET: Final = np.array(
    [
        [5.35, 5.05, 4.25, 2.85, 0.35],
        [4.05, 3.75, 2.85, 1.65, -0.45],
        [2.75, 2.35, 1.75, 0.85, -0.95],
        [1.45, 1.15, 0.65, 0.05, -1.45],
        [0.35, 0.15, -0.25, -0.75, -2.05],
        [-0.75, -1.05, -1.35, -1.75, -2.75],
    ]
)
SMALL_TERMS: Final = [
    name for name in COEFFICIENTS if name not in {"intercept", "distance", "ln_theta_squared"}
]
WITHIN: Final = (1_000, 2_000, 3_000, 4_000)  # outcomes since the change


def learning(
    parts: tuple[str, ...] = (), runs: int = 200, seed: int = 0, jobs: int = 1
) -> dict[str, list[Row]]:
    """Measure learning, the alarm, and trained models.

    Args:
        parts: some of `false-alarms`, `power`, `replay`, `coverage` (intervals of trained models in worlds of
            three formulas) and `training` (trained on few kicks, against the packaged model); all by default.
        runs: number of simulated services of each kind; a tenth as many trainings for `coverage`, a quarter
            for `training`.
        seed: the same seed gives the same figures.
        jobs: processes that train at the same time.
    """
    known: dict[str, Callable[[int, int], dict[str, list[Row]]]] = {
        "false-alarms": false_alarms,
        "power": power,
        "replay": replay,
        "coverage": partial(coverage, jobs=jobs),
        "training": partial(against_packaged, jobs=jobs),
    }
    unknown = [part for part in parts if part not in known]
    if unknown:
        raise SystemExit(f"there is no part {unknown[0]!r}: choose among {', '.join(known)}")
    return {title: rows for part in parts or known for title, rows in known[part](runs, seed).items()}


def false_alarms(runs: int, seed: int) -> dict[str, list[Row]]:
    """Count the alarms over outcomes of the shipped generator, to which the packaged model is fitted."""
    model = load_model(settings := Settings.load({}), discover(settings))
    alarms, most, seconds = 0, 0.0, 0.0
    for run in range(runs):
        kicks = simulate(LONG, seed + 1_000_000 + run)
        probability = predict(model, kicks.matrix).probability
        began = time.perf_counter()
        alarm = Alarm()
        alarm.hear(probability, kicks.success)
        seconds += time.perf_counter() - began
        alarms += alarm.first is not None
        most = max(most, alarm.evidence)
        _say(f"false alarms: {alarms} in {run + 1} runs", run, runs)
    row = {
        "runs": runs,
        "false_alarms": alarms,
        "share": alarms / runs,
        "at_most_by_ville": 1 / LEVEL,
        "seconds_a_run": seconds / runs,
    }
    return {f"false alarms over {LONG:,} outcomes": [row]}


def power(runs: int, seed: int) -> dict[str, list[Row]]:
    """Measure after how many outcomes a change is heard: from the start, and after quiet outcomes."""
    model = load_model(settings := Settings.load({}), discover(settings))
    pool = predict(model, simulate(4 * LONG, seed).matrix).probability
    return {
        f"heard within so many outcomes, after {quiet:,} quiet ones": [
            {"world": name, **_power(pool, world, quiet, runs, [seed, 1 + at, quiet])}
            for at, (name, world) in enumerate(worlds(pool).items())
        ]
        for quiet in (0, QUIET)
    }


def replay(runs: int, seed: int) -> dict[str, list[Row]]:  # noqa: ARG001  one is enough
    """Replay a season of a weaker competition by the command: the model alone, the level, the kickers."""
    rng = np.random.default_rng([seed, 1])
    matrix = simulate(SEASON, seed + 2).matrix
    kicker = rng.choice(KICKERS, SEASON, p=rng.dirichlet(np.full(KICKERS, 0.5)))
    ability = rng.normal(0, ABILITY_SD, KICKERS)
    success = rng.random(SEASON) < _expit(logit(matrix) + ability[kicker] + WEAKER)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "season.parquet"
        with open_writer(file, [*NAMES, "kicker", "success"]) as writer:
            labels = np.char.add("kicker ", kicker.astype(str))
            writer.write({**columns(matrix), "kicker": labels, "success": success.astype(int)})
        command = [sys.executable, "-m", "kickserve", "replay", str(file), "--json"]
        found = json.loads(subprocess.check_output(command, env=common.environment()))
    alarm = found.pop("alarm")
    return {
        f"a season of {SEASON:,} kicks by {KICKERS} kickers, level {WEAKER}": [
            {"predicted_by": name, **measured} for name, measured in found.items()
        ],
        "alarm on the model": [alarm],
    }


def worlds(pool: NDArray[np.float64]) -> Mapping[str, World]:
    """Return the probabilities in some changed worlds, by their names, given those in the world as it was."""
    up, down = (_shift(pool, points) for points in (0.05, -0.05))
    return {
        "5 points more, by log-odds": lambda p: _expit(_logit(p) + up),
        "5 points less, by log-odds": lambda p: _expit(_logit(p) + down),
        "each kick 5 points more": lambda p: np.minimum(p + 0.05, 1.0),
        "each kick 5 points less": lambda p: np.maximum(p - 0.05, 0.0),
        "8 % of the successes fail": lambda p: 0.92 * p,
        "log-odds times 1.4": lambda p: _expit(1.4 * _logit(p)),
        "log-odds over 1.4": lambda p: _expit(_logit(p) / 1.4),
    }


def _power(pool: NDArray[np.float64], world: World, quiet: int, runs: int, seed: list[int]) -> Row:
    rng = np.random.default_rng(seed)
    heard: list[float] = []
    names: list[str] = []
    early = 0
    for run in range(runs):
        probability = rng.choice(pool, quiet + WITHIN[-1])
        truth = np.concatenate([probability[:quiet], world(probability[quiet:])])
        alarm = Alarm()
        alarm.hear(probability, rng.random(len(truth)) < truth)
        if alarm.first is not None and alarm.first.at <= quiet:
            early += 1
            continue
        heard.append(np.inf if alarm.first is None else alarm.first.at - quiet)
        names += [] if alarm.first is None else [alarm.first.what]
        _say(f"power: {run + 1} runs", run, runs)
    common = max(set(names), key=names.count) if names else "nothing"
    return {
        "runs": len(heard),
        "median": float(np.median(heard)),
        **{f"{within:,}": float(np.mean(np.array(heard) <= within)) for within in WITHIN},
        "mostly_named": f"{common} ({names.count(common) / max(len(names), 1):.0%})",
        "before": early,
    }


# Training: a world is the log-odds of a kicker of middling ability, by the features of kicks, shape (n, 11).


def by_ln_theta(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of the formula that the packaged model had before: with ln θ, not its square."""
    terms = COEFFICIENTS | {"intercept": -1.98, "distance": -0.035, "ln_theta": 2.2, "ln_theta_squared": 0.0}
    result: NDArray[np.float64] = expand(matrix, terms) @ np.array(list(terms.values()))
    return result


def by_tensor(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of a smooth surface over distance and angle that follows no formula."""
    far = _weights(matrix[:, INDEX["distance"]], NET_DISTANCES)
    aside = _weights(matrix[:, INDEX["angle"]], NET_ANGLES)
    place = np.einsum("ni,ij,nj->n", far, NET, aside)
    terms = {name: COEFFICIENTS[name] for name in SMALL_TERMS}
    result: NDArray[np.float64] = place + expand(matrix, terms) @ np.array(list(terms.values()))
    return result


def _weights(values: NDArray[np.float64], knots: tuple[float, ...]) -> NDArray[np.float64]:
    """Return quadratic B-splines over the numbers of the knots, shape (n, k); the ends keep their values."""
    at = np.interp(values, knots, np.arange(len(knots)))
    far = np.abs(at[:, np.newaxis] - np.arange(len(knots)))
    pieces = np.where(far < HALF, 0.75 - far**2, 0.5 * np.maximum(1.5 - far, 0) ** 2)
    found: NDArray[np.float64] = pieces / pieces.sum(axis=1, keepdims=True)
    return found


FORMULAS: Final[Mapping[str, World]] = {"(ln θ)²": logit, "ln θ": by_ln_theta, "tensor splines": by_tensor}


class Trial(NamedTuple):
    """One training, and what to measure of it."""

    world: str
    kicks: int
    named: bool
    start: str
    seed: int


def coverage(runs: int, seed: int, jobs: int) -> dict[str, list[Row]]:
    """Measure how often intervals of trained models hold the truth, in worlds of three formulas."""
    title = "95 % intervals that hold the truth: all kicks, and those within 15 m"
    rows: list[Row] = []
    with _pool(jobs) as pool:
        for world, kicks, named in product(FORMULAS, SIZES, (False, True)):
            row: Row = {"world": world, "kicks": kicks, "kickers": "named" if named else "unnamed"}
            for start, name in (("none", "from scratch"), ("packaged", "by default")):
                seeds = range(seed, seed + max(runs // 10, 1))
                found = list(pool.map(covered, [Trial(world, kicks, named, start, each) for each in seeds]))
                row[name] = fmean(each[0] for each in found)
                row[f"{name}, near"] = fmean(each[1] for each in found)
                row[f"{name}, chosen"] = _common([each[2] for each in found])
            rows.append(row)
            progress.print(row)
    return {title: rows}


def covered(trial: Trial) -> tuple[float, float, str]:
    """Train a model; return the share of kicks whose truth its intervals hold, of near kicks, and its kind.

    What the truth is depends on what the interval covers: the probability for a kicker of unknown ability,
    or, if no kicker is named, the mean over kickers.
    """
    formula = FORMULAS[trial.world]
    document, kind = _train(_drawn(formula, trial), trial)
    fresh = simulate(FRESH, trial.seed + 1_000_000)
    z = formula(fresh.matrix)
    ability = np.random.default_rng([trial.seed, 9]).normal(0, ABILITY_SD, FRESH)
    truth = _expit(z + ability) if document.ability_sd else _expit(z / mean_shrink(ABILITY_SD))
    _, low, high = model_of(document).predict(fresh.matrix)
    holds = (np.asarray(low) <= truth) & (truth <= np.asarray(high))
    near = fresh.matrix[:, INDEX["distance"]] < NEAR
    return float(holds.mean()), float(holds[near].mean()), kind


def against_packaged(runs: int, seed: int, jobs: int) -> dict[str, list[Row]]:
    """Compare models trained on few kicks with the packaged one, where the level has moved by 3 points."""
    rows: list[Row] = []
    packaged = load_default().predict(simulate(FRESH, seed).matrix).probability
    with _pool(jobs) as pool:
        for points, kicks in product((0.03, -0.03), FEW):
            level = _shift(packaged, points)
            seeds = range(seed, seed + max(runs // 4, 1))
            found = list(pool.map(worse_by, repeat(level), repeat(kicks), seeds))
            rows.append(
                {
                    "level moved by": points,
                    "kicks": kicks,
                    "trainings": len(found),
                    "mean_difference": fmean(each[0] for each in found),
                    "worst": max(each[0] for each in found),
                    "chosen": _common([each[1] for each in found]),
                    "passed": max(each[0] for each in found) <= WORST,
                }
            )
            progress.print(rows[-1])
    return {f"log loss of {FRESH:,} fresh kicks, less that of the packaged model": rows}


def worse_by(level: float, kicks: int, seed: int) -> tuple[float, str]:
    """Train on few kicks of a world whose level has moved; return by how much more log loss than packaged."""

    def world(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        return logit(matrix) + level

    trial = Trial("", kicks, named=False, start="current", seed=seed)
    known = simulate(kicks, seed + 2_000_000)
    ability = np.random.default_rng([seed, 8]).normal(0, ABILITY_SD, kicks)
    outcome = np.random.default_rng([seed, 7]).random(kicks) < _expit(world(known.matrix) + ability)
    document, kind = _train(Dataset(known.matrix, outcome), trial)
    fresh = simulate(FRESH, seed + 3_000_000)
    p = _expit(world(fresh.matrix) / mean_shrink(ABILITY_SD))
    mine, other = (each.predict(fresh.matrix).probability for each in (model_of(document), load_default()))
    loss = p * np.log(other / mine) + (1 - p) * np.log((1 - other) / (1 - mine))
    return float(loss.mean()), kind


def _drawn(formula: World, trial: Trial) -> Dataset:
    """Draw kicks of kickers who take 50 each."""
    rng = np.random.default_rng([trial.seed, trial.kicks])
    matrix = simulate(trial.kicks, trial.seed).matrix
    kicker = rng.permutation(np.arange(trial.kicks) // OF_A_KICKER)
    ability = rng.normal(0, ABILITY_SD, kicker.max() + 1)[kicker]
    success = rng.random(trial.kicks) < _expit(formula(matrix) + ability)
    return Dataset(matrix, success, kicker if trial.named else None)


def _train(dataset: Dataset, trial: Trial) -> tuple[Document, str]:
    config = TrainingConfig(name="bench", data="simulated", start=trial.start, seed=trial.seed)
    dataset, summary = check(dataset, [])
    document, report = TrainingRun(dataset, summary, config).run()
    return document, report.kind


def _common(names: list[str]) -> str:
    return ", ".join(f"{name} {count / len(names):.0%}" for name, count in Counter(names).most_common())


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, get_context("spawn"), threadpool_limits, (1,))


def _shift(pool: NDArray[np.float64], points: float) -> float:
    """Return the shift of all log-odds that moves the mean probability by so much, by bisection."""
    low, high = -3.0, 3.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (_expit(_logit(pool) + middle) - pool).mean() < points else (low, middle)
        )
    return low


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.log(p / (1 - p))
    return result


def _expit(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-z))


def _say(text: str, run: int, runs: int) -> None:
    if run % 50 == 49 and run + 1 < runs:  # noqa: PLR2004  now and then
        progress.print(text)
