"""A throwaway nginx, from Debian's package, with a file of the project's own."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import time
from collections import Counter
from pathlib import Path

import debian
import httpx
from postgres import free_port
from serving import PATIENCE

FILE = Path(__file__).parents[1] / "ops" / "nginx" / "kickserve.conf"
# What surrounds the file: Debian's own would need root, and take ports that are taken.
AROUND = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    log_format replicas "$status $upstream_addr";
    access_log {folder}/nginx-access.log replicas;
    include {folder}/kickserve.conf;
}}
"""


class Nginx:
    """A running nginx.

    Args:
        folder: for its files.
        replicas: the ports of the replicas on this machine, which take the place of those in `text`.
        text: a server that listens on 7860.

    Attributes:
        url: where it listens.
    """

    def __init__(self, folder: Path, replicas: list[int], text: str = "") -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        (folder / "kickserve.conf").write_text(placed(text or FILE.read_text(), port, replicas))
        user = f"user {getpass.getuser()} root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(AROUND.format(folder=folder, user=user))
        self._process = subprocess.Popen(
            [debian.program("nginx", "nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/metrics")
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        self.close()
        raise RuntimeError((self._folder / "nginx-error.log").read_text())

    def answers(self) -> tuple[Counter[str], int]:
        """Return how many requests each replica had the last word in, and how many were asked again."""
        asked = [
            line.split(" ", 1)[1] for line in (self._folder / "nginx-access.log").read_text().splitlines()
        ]
        return Counter(each.split(", ")[-1] for each in asked), sum("," in each for each in asked)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE)


def placed(text: str, port: int, replicas: list[int]) -> str:
    """Put ports of ours in the place of those in the project's file."""
    text = text.replace("listen 7860;", f"listen 127.0.0.1:{port};")
    named = sorted(set(re.findall(r"server 127\.0\.0\.1:(\d+)", text)))
    for old, new in zip(named, replicas, strict=True):
        text = text.replace(f"127.0.0.1:{old} ", f"127.0.0.1:{new} ")
    return text
