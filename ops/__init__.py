"""Operations: containers, benchmarks, drills and attacks. They start servers as the tests do, from tests/."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
