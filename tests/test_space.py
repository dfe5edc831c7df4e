"""The Space of Hugging Face: what is in its folder, its front matter, and how it comes to the hub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hub import hub
from huggingface_hub import RepoCard, SpaceCard
from postgres import free_port

from kickserve.settings import Settings

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "ops" / "space.py"
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}  # those that the hub knows


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "space"
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def tracked(*paths):
    command = ["git", "ls-files", "--", *paths]
    return set(subprocess.check_output(command, cwd=ROOT, text=True).split())


def test_the_folder_holds_what_the_image_is_built_from_and_nothing_else(folder):
    of_its_own = {"Dockerfile", "LICENSE", "README.md", "pyproject.toml"}
    build = {"ops/readme.py", "ops/requirements.py"}
    assert names(folder) == of_its_own | build | tracked("kickserve", "plugins")


def test_all_that_its_dockerfile_copies_is_there(folder):
    assert (folder / "Dockerfile").read_bytes() == (ROOT / "Containerfile").read_bytes()
    text = (folder / "Dockerfile").read_text().replace("\\\n", " ")
    copies = [
        line for line in re.findall(r"^(?:COPY|ADD) (.+)$", text, re.MULTILINE) if "--from=" not in line
    ]
    sources = [word for line in copies for word in line.split()[:-1] if not word.startswith("--")]
    assert {"kickserve", "plugins", "pyproject.toml"} <= {*sources}
    assert [each for each in sources if not (folder / each).exists()] == []


def test_the_front_matter_is_one_that_the_hub_takes(folder):
    card = SpaceCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["sdk"] == "docker"
    assert data["app_port"] == Settings().port
    assert data["title"] == "kickserve"
    assert data["license"] == "mit"
    assert {data["colorFrom"], data["colorTo"]} <= COLOURS
    assert not re.search(r"[\w\s]", data["emoji"]), "emoji only"
    assert 0 < len(data["short_description"]) <= 60
    assert data["pinned"] is False
    assert RepoCard(card.content).text.lstrip().startswith("# kickserve")


def test_on_a_space_the_hub_may_frame_the_page_unless_the_setting_says_otherwise():
    def ancestors(**variables):
        return Settings.load(variables).frame_ancestors

    assert ancestors(SPACE_ID="me/kicks") == ("https://huggingface.co",)
    assert ancestors(SPACE_ID="me/kicks", KICKSERVE_FRAME_ANCESTORS="https://me.org") == ("https://me.org",)
    assert ancestors(SPACE_ID="me/kicks", KICKSERVE_FRAME_ANCESTORS="") is None
    assert ancestors(SPACE_ID="") is None


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    done = run(tmp_path)
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert names(tmp_path) == {"mine"}


def test_the_upload_replaces_all_that_the_space_had(folder, tmp_path):
    with hub({"left_over.py": b"", ".gitattributes": b""}) as server:
        done = run("--upload", "me/kicks", HF_ENDPOINT=server.url, HF_TOKEN="hf_x", HF_HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "me/kicks" in done.stdout
        assert server.files.keys() == names(folder) | {".gitattributes"}
        assert server.files["Dockerfile"] == (ROOT / "Containerfile").read_bytes()
        assert server.created["type"] == "space"
        assert server.created["sdk"] == "docker"
        assert ("/api/spaces/me/kicks/commit/main", "Bearer hf_x") in server.asked


def test_without_a_token_the_upload_says_what_to_set(tmp_path):
    done = run("--upload", "me/kicks", HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "HF_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["me/kicks", "me/my/kicks"])
def test_a_hub_that_refuses_is_told_of_in_a_sentence(tmp_path, name):
    with hub({}, fault=(403, None)) as server:
        done = run("--upload", name, HF_ENDPOINT=server.url, HF_TOKEN="hf_x", HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "the hub did not take it" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_is_away_is_told_of_in_a_sentence(tmp_path):
    away = f"http://127.0.0.1:{free_port()}"
    done = run("--upload", "me/kicks", HF_ENDPOINT=away, HF_TOKEN="hf_x", HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "the hub did not take it" in done.stderr
    assert "Traceback" not in done.stderr
