"""A throwaway Prometheus, from Debian's package: scrapes one service, with the project's own rules."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import debian
import httpx
from postgres import free_port
from serving import PATIENCE

RULES = Path(__file__).parents[1] / "ops" / "prometheus" / "rules.yml"


class Prometheus:
    """A running Prometheus that scrapes once a second.

    The rules are the project's own, but for the time that each must hold before it fires: a second here.

    Args:
        folder: for its files.
        target: host and port of the service.
    """

    def __init__(self, folder: Path, target: str) -> None:
        rules = re.sub(r"^( +for:) .+$", r"\1 1s", RULES.read_text(), flags=re.MULTILINE)
        (folder / "rules.yml").write_text(rules)
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
            "rule_files: [rules.yml]\n"
            f"scrape_configs: [{{job_name: kickserve, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        port = free_port()
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=60)
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                debian.program("prometheus", "prometheus"),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = self._ask("/alerts").get("alerts", [])
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def value(self, query: str) -> float | None:
        """Return what a query says of now; None where it says nothing."""
        found = self._ask("/query", query=query).get("result", [])
        return float(found[0]["value"][1]) if found else None

    def _ask(self, path: str, **query: str) -> dict:
        try:
            answer = self._http.get(path, params=query)
        except httpx.TransportError:
            return {}  # it is not up yet
        return answer.json()["data"] if answer.is_success else {}

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._http.close()
        self._log.close()
