"""Makes the environment of the peers on first use, and the models that they serve."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[2]
HOME: Final = ROOT / ".venv-bench"  # git ignores it, as all that begins with .venv
REQUIREMENTS: Final = HERE / "requirements.txt"
FIT: Final = HERE / "fit.py"
LOGISTIC: Final = HOME / "logistic.joblib"
FOREST: Final = HOME / "forest.joblib"


def python() -> Path:
    """Return the environment's interpreter."""
    return HOME / "bin" / "python"


def make() -> None:
    """Make environment and models, unless they are up to date."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), REQUIREMENTS.read_bytes(), FIT.read_bytes()]
    wanted = hashlib.sha256(b"".join(parts) + sys.version.encode()).hexdigest()
    stamp = HOME / "bench-stamp"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"making the peers' environment {HOME.name} (once)", file=sys.stderr, flush=True)
    venv.create(HOME, with_pip=True, clear=True)
    # kickserve itself too: one of the servers is kickserve with a forest behind it.
    _run("-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS), "-e", f"{ROOT}[metrics,sklearn]")
    _run("-m", "kickserve", "simulate", "--size", "20000", "--seed", "7", "--output", str(HOME / "kicks.csv"))
    _run(str(FIT), str(HOME / "kicks.csv"), str(LOGISTIC), str(FOREST))
    stamp.write_text(wanted)


def versions() -> dict[str, str]:
    """Return the version of each installed package, by name."""
    command = [str(python()), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {each["name"].lower(): each["version"] for each in listed}


def _run(*arguments: str) -> None:
    if subprocess.run([str(python()), *arguments], cwd=ROOT, check=False).returncode:
        sys.exit("the peers' environment could not be made: the output above says why")
