"""compose.yaml and Containerfile, read: what they must not do, and what others rely on. Needs no engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
CONTAINERFILE = (ROOT / "Containerfile").read_text()
EVERY = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing_to_mend():
    done = run(BIN / "hadolint", "Containerfile")
    assert done.returncode == 0, done.stdout


def test_compose_follows_its_schema():
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")
    assert done.returncode == 0, done.stdout


@EVERY
def test_every_service_is_locked_up_and_limited(service):
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    assert service["restart"] == "unless-stopped"


@EVERY
def test_no_secret_has_a_default(service):
    """Each comes from the environment or .env, and a missing one ends with a word on what to do."""
    for name, value in service["environment"].items():
        if re.search("KEY|PASSWORD|SECRET|TOKEN", name) and value:
            assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
    assert "admin" not in str(service.get("environment"))


def test_the_words_for_a_missing_secret_say_what_makes_it():
    for name in ("API_KEY", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD"):
        assert re.search(rf"\$\{{{name}:\?is not set\. `just up` makes", (ROOT / "compose.yaml").read_text())


def test_postgres_cannot_be_reached_from_outside():
    assert "ports" not in SERVICES["postgres"]
    assert SERVICES["postgres"]["networks"] == ["store"]
    assert COMPOSE["networks"]["store"]["internal"] is True


@EVERY
def test_what_is_open_is_open_to_this_machine_alone_unless_one_says_so(service):
    for port in service.get("ports", []):
        assert port.startswith(("127.0.0.1:", "${KICKSERVE_ADDRESS:-127.0.0.1}:"))


@EVERY
def test_what_is_kept_stands_on_a_named_volume(service):
    for volume in service["volumes"]:
        source = volume.partition(":")[0]
        assert source in COMPOSE["volumes"] or volume.endswith(":ro"), volume


def test_service_and_postgres_are_watched_for_health():
    assert "HEALTHCHECK" in CONTAINERFILE
    assert SERVICES["postgres"]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES["kickserve"]["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_the_password_stands_in_no_url_so_that_it_may_hold_any_character():
    settings = SERVICES["kickserve"]["environment"]
    assert "PASSWORD" not in settings["DATABASE_URL"]
    assert settings["PGPASSWORD"].startswith("${POSTGRES_PASSWORD:?")


def test_watching_is_started_only_where_it_is_asked_for():
    watching = {name for name, service in SERVICES.items() if service.get("profiles") == ["watch"]}
    assert watching == {"prometheus", "grafana"}
    for name, service in SERVICES.items():
        for volume in service["volumes"]:
            if volume.startswith("./"):
                assert (ROOT / volume.partition(":")[0]).exists(), name


def test_prometheus_has_the_same_rules_and_gets_the_key_from_memory():
    told = yaml.safe_load((ROOT / "ops/prometheus/compose.yml").read_text())
    alone = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())
    assert told["rule_files"] == alone["rule_files"]
    [job] = told["scrape_configs"]
    assert job["job_name"] == alone["scrape_configs"][0]["job_name"]
    assert job["static_configs"] == [{"targets": ["kickserve:7860"]}]
    file = job["authorization"]["credentials_file"]
    assert f">{file}" in SERVICES["prometheus"]["command"][0]
    assert file.startswith(SERVICES["prometheus"]["tmpfs"][0])


def stages():
    return re.split(r"^FROM ", CONTAINERFILE, flags=re.MULTILINE)[1:]


def test_dependencies_are_installed_before_code_is_copied():
    dependencies, code, final = stages()
    assert "kickserve kickserve" not in dependencies
    assert code.index("pip --disable") < code.index("COPY kickserve")
    assert final.index("--from=dependencies") < final.index("--from=code")


def test_the_image_runs_as_user_1000_needs_no_shell_and_says_what_it_is():
    final = stages()[-1]
    assert "USER 1000:1000" in final
    for word in ("ENTRYPOINT", "CMD"):
        assert re.search(rf"^{word} \[", final, re.MULTILINE), "in the form that starts no shell"
    assert re.search(r"HEALTHCHECK .*\\\n +CMD \[", final)
    assert "STOPSIGNAL SIGTERM" in final
    assert "DEBUG=0" in final
    assert {"version", "revision", "title"} <= set(re.findall(r"opencontainers\.image\.(\w+)=", final))


def test_all_that_the_image_writes_stands_below_its_volume():
    final = stages()[-1]
    assert "VOLUME /data" in final
    for name in (
        "DATABASE_URL",
        "KICKSERVE_JOURNAL_DIR",
        "KICKSERVE_PROFILE_DIR",
        "KICKSERVE_REPORTS",
        "HF_HOME",
    ):
        assert re.search(rf"{name}=(sqlite:///)?/data/", final), name


def test_all_that_the_image_is_built_from_is_let_through_and_nothing_secret():
    lets = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lets
    allowed = {line[1:] for line in lets if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--)(.+)$", CONTAINERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == allowed
