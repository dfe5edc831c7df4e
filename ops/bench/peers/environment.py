"""Makes the environments of the peers on first use, and the models that they serve."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[2]
HOME: Final = ROOT / ".venv-bench"  # git ignores it, as all that begins with .venv
PEERS: Final = "peers"
MLSERVER: Final = "mlserver"
LEAN: Final = "lean"
REQUIREMENTS: Final = {
    PEERS: ("-r", str(HERE / "requirements.txt")),
    MLSERVER: ("-r", str(HERE / "mlserver.txt")),
    LEAN: ("-e", str(ROOT)),  # kickserve without any extra
}
OURS: Final = ""
_VERSIONS: Final = (
    "import importlib.metadata as m, json;"
    " print(json.dumps({each.name.lower(): each.version for each in m.distributions()}))"
)


def python(name: str) -> Path:
    """Return the interpreter of an environment."""
    return HOME / name / "bin" / "python" if name else Path(sys.executable)


def model(name: str, kind: str) -> Path:
    """Return where the model of an environment is: `logistic` or `forest`, as `fit.py` makes them."""
    return HOME / name / f"{kind}.joblib"


def make(name: str) -> bool:
    """Make an environment, unless it is up to date; say whether it could be made."""
    stamp = HOME / name / "bench-stamp"
    kind, what = REQUIREMENTS[name]
    file = Path(what, "pyproject.toml") if kind == "-e" else Path(what)
    wanted = hashlib.sha256(sys.version.encode() + file.read_bytes()).hexdigest()
    HOME.mkdir(exist_ok=True)
    if stamp.is_file() and stamp.read_text() == wanted:
        return True
    print(f"making the environment {HOME.name}/{name} (once)", file=sys.stderr, flush=True)
    if uv := shutil.which("uv"):
        create = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(HOME / name)]
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python(name))]
        made = _runs(*create) and _runs(*install, *REQUIREMENTS[name])
    else:
        venv.create(HOME / name, with_pip=True, clear=True)
        made = _runs(python(name), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name])
    if made:
        stamp.write_text(wanted)
    return made


def fit(name: str, kind: str) -> None:
    """Fit a model with the packages of the environment that loads it."""
    kicks = HOME / "kicks.csv"
    simulate = ("simulate", "--size", "20000", "--seed", "7", "--output", kicks)
    made = _runs(sys.executable, "-m", "kickserve", *simulate)
    if not (made and _runs(python(name), HERE / "fit.py", kicks, kind, model(name, kind))):
        sys.exit(f"the model {kind} could not be fitted: the output above says why")


def versions(name: str) -> dict[str, str]:
    """Return the version of each package of an environment, by name; none where it was not made."""
    if not python(name).is_file():
        return {}
    command = [str(python(name)), "-c", _VERSIONS]
    found: dict[str, str] = json.loads(subprocess.check_output(command, text=True))
    return found


def _runs(*command: object) -> bool:
    return subprocess.run([*map(str, command)], cwd=HOME, stdout=sys.stderr, check=False).returncode == 0
