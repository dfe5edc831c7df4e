"""`just up` makes .env: random, for its owner alone, and never over what stands there."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))

import requirements  # found through the line above
import secrets_file


def test_a_missing_file_is_made_with_random_secrets_for_its_owner_alone(tmp_path):
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        assert secrets_file.add_missing(file) == ["API_KEY", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD"]
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    values = [value for file in files for value in dotenv_values(file).values()]
    assert len(set(values)) == 6
    assert all(re.fullmatch(r"[\w-]{32}", value) for value in values), "they fit into a URL as they are"


@pytest.mark.parametrize("end", ["\n", ""])
def test_what_stands_there_stays_and_only_what_is_missing_is_added(tmp_path, end):
    file = tmp_path / ".env"
    before = f"# mine\nPOSTGRES_PASSWORD=\nexport API_KEY='mine'\nKICKSERVE_PORT=8000{end}"
    file.write_text(before)
    assert secrets_file.add_missing(file) == ["POSTGRES_PASSWORD", "GRAFANA_PASSWORD"]
    assert file.read_text().startswith(before)
    values = dotenv_values(file)
    assert values["API_KEY"] == "mine"
    assert values["KICKSERVE_PORT"] == "8000"
    assert len(values["POSTGRES_PASSWORD"]) == 32
    assert secrets_file.add_missing(file) == []


def test_requirements_are_those_of_the_project_and_of_the_extras_each_once():
    project = {
        "dependencies": ["msgspec>=1"],
        "optional-dependencies": {
            "parquet": ["pyarrow"],
            "sklearn": ["scikit-learn"],
            "train": ["kickserve[parquet,sklearn]"],
            "all": ["kickserve[parquet,train]"],
        },
    }
    assert requirements.requirements(project, []) == ["msgspec>=1"]
    assert sorted(requirements.requirements(project, ["all"])) == ["msgspec>=1", "pyarrow", "scikit-learn"]


def test_an_extra_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(SystemExit, match="choose among parquet"):
        requirements.requirements({"dependencies": [], "optional-dependencies": {"parquet": []}}, ["moon"])
