"""Measures what is learned from outcomes, on simulated kicks: the alarm, and what learning would bring.

Each part draws kicks by `kickserve_data.simulate`, asks the packaged model, and measures without a service.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from kickserve.features import NAMES, columns
from kickserve.loading import load_model
from kickserve.model import predict
from kickserve.plugins import discover
from kickserve.settings import Settings
from kickserve_data.simulate import ABILITY_SD, logit, simulate
from kickserve_data.writer import open_writer
from kickserve_scores.alarm import LEVEL, Alarm
from ops.bench import common
from ops.commands import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ops.commands import Row

    World = Callable[[NDArray[np.float64]], NDArray[np.float64]]

LONG: Final = 100_000  # outcomes without a change
QUIET: Final = 10_000  # outcomes before a late change
SEASON: Final = 25_000  # kicks of a replay
KICKERS: Final = 150
WEAKER: Final = -0.2  # log-odds of all kicks
WITHIN: Final = (1_000, 2_000, 3_000, 4_000)  # outcomes since the change


def learning(parts: tuple[str, ...] = (), runs: int = 200, seed: int = 0) -> dict[str, list[Row]]:
    """Measure learning and the alarm: false alarms, how soon a change is heard, what learning brings.

    Args:
        parts: some of `false-alarms`, `power` and `replay`; all by default.
        runs: number of simulated services of each kind.
        seed: the same seed gives the same figures.
    """
    known: dict[str, Callable[[int, int], dict[str, list[Row]]]] = {
        "false-alarms": false_alarms,
        "power": power,
        "replay": replay,
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
