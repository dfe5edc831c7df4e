"""Collects the files of a Hugging Face Space, and uploads them. See ops/docs/space.md.

    python ops/space.py [FOLDER]             into a new folder, build/space where none is named
    python ops/space.py --upload OWNER/NAME  to the hub

They are the files that an image is built from (see .dockerignore), the Containerfile as `Dockerfile`, and
README.md below the front matter that configures the Space.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from huggingface_hub import HfApi, get_token

from kickserve import __version__

ROOT = Path(__file__).resolve().parent.parent
USUAL = ROOT / "build" / "space"
FRONT_MATTER = """\
---
title: kickserve
emoji: 🏉
colorFrom: green
colorTo: blue
sdk: docker
app_port: 7860
pinned: false
license: mit
short_description: The honest probability that a place kick goes over
---

"""


def contents() -> dict[str, Path]:
    """Return the files of the Space by their names there: what git tracks of what an image is built from.

    Raises:
        SystemExit: git does not know one of them.
    """
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    wanted = [line[1:] for line in lines if line.startswith("!")]
    command = ["git", "ls-files", "-z", "--error-unmatch", "--", *wanted]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        sys.exit(f"git does not have all that the Containerfile copies: {listed.stderr.strip()}")
    names = filter(None, listed.stdout.split("\0"))
    return {"Dockerfile": ROOT / "Containerfile", **{name: ROOT / name for name in names}}


def put_together(folder: Path) -> int:
    """Fill a folder, and return of how many files.

    Raises:
        SystemExit: there is something in it.
    """
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty: name a new folder")
    found = contents()
    for name, file in found.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    readme = folder / "README.md"
    readme.write_text(FRONT_MATTER + readme.read_text("utf-8"), "utf-8")
    return len(found)


def upload(space: str) -> str:
    """Replace all files of the Space by those of this repository; return its address.

    Args:
        space: OWNER/NAME; made where it is not there yet.

    Raises:
        SystemExit: there is no token, or the hub refuses.
    """
    token = get_token()
    if token is None:
        sys.exit(
            "no token for the hub: set HF_TOKEN to one that may write to the Space, or run  hf auth login"
        )
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        put_together(Path(folder))
        try:
            url = api.create_repo(space, repo_type="space", space_sdk="docker", exist_ok=True)
            message = f"kickserve {__version__}, {_revision()}"
            api.upload_folder(
                repo_id=space,
                repo_type="space",
                folder_path=folder,
                delete_patterns="*",
                commit_message=message,
            )
        except Exception as error:  # noqa: BLE001  its library passes on those of its HTTP client, whichever that is
            sys.exit(f"the hub did not take it: {error}")
    return str(url)


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Collect or upload."""
    parser = argparse.ArgumentParser(description="Puts together a Space of Hugging Face, and uploads it.")
    parser.add_argument("folder", nargs="?", type=Path, help="a new folder; build/space where none is named")
    parser.add_argument("--upload", metavar="OWNER/NAME", help="the Space to bring up to date")
    arguments = parser.parse_args()
    if arguments.upload:
        print(f"uploaded to {upload(arguments.upload)}")
        return
    folder = arguments.folder or USUAL
    if folder == USUAL:
        shutil.rmtree(USUAL, ignore_errors=True)
    print(f"{put_together(folder)} files in {folder}; --upload OWNER/NAME takes them to the hub")


if __name__ == "__main__":
    main()
