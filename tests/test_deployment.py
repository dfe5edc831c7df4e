"""Files that machines read: image, compose.yaml, manifests, workflows, a Space, release notes.

Their form is checked by `just check`; here they must agree with each other and with the service.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import stat
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import debian
import httpx
import pytest
import yaml
from conftest import settings_rows
from dotenv import dotenv_values
from hub import hub
from huggingface_hub import RepoCard, SpaceCard
from nginx import Nginx
from serving import BARE, serving
from snippets import read

from kickserve.app import create_app
from kickserve.openapi import EXAMPLE, NDJSON
from kickserve.settings import Settings
from ops import compose, release

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "ops" / "k8s"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
CONTAINERFILE = (ROOT / "Containerfile").read_text()
FINAL = re.split(r"^FROM ", CONTAINERFILE, flags=re.MULTILINE)[-1]
WORKFLOWS = [*(ROOT / ".github" / "workflows").glob("*.yml")]
WRITTEN = ("KICKSERVE_JOURNAL_DIR", "KICKSERVE_PROFILE_DIR", "KICKSERVE_REPORTS", "HF_HOME")
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


class TestImage:
    def test_it_runs_as_user_1000_without_a_shell(self):
        assert "USER 1000:1000" in FINAL
        for word in ("ENTRYPOINT", "CMD"):
            assert re.search(rf"^{word} \[", FINAL, re.MULTILINE), "in the form that starts no shell"
        assert re.search(r"HEALTHCHECK .*\\\n +CMD \[", FINAL)
        assert {"version", "revision", "title"} <= set(re.findall(r"opencontainers\.image\.(\w+)=", FINAL))

    def test_it_writes_below_its_volume_alone(self):
        assert "VOLUME /data" in FINAL
        for name in ("DATABASE_URL", *WRITTEN):
            assert re.search(rf"{name}=(sqlite:///)?/data/", FINAL), name

    def test_its_build_sees_what_it_copies_and_nothing_else(self):
        lets = (ROOT / ".dockerignore").read_text().splitlines()
        copies = re.findall(r"^COPY (?!--)(.+)$", CONTAINERFILE, re.MULTILINE)
        assert "*" in lets
        assert {line[1:] for line in lets if line.startswith("!")} == {
            source for line in copies for source in line.split()[:-1]
        }


class TestCompose:
    @each_service
    def test_every_service_is_locked_up_and_limited(self, service):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert not {"cap_add", "privileged"} & service.keys()
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()

    @each_service
    def test_no_secret_has_a_default(self, service):
        for name, value in service["environment"].items():
            if re.search("KEY|PASSWORD|SECRET|TOKEN", name) and value:
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name

    @each_service
    def test_ports_are_open_to_this_machine_alone_by_default(self, service):
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${KICKSERVE_ADDRESS:-127.0.0.1}:"))

    @each_service
    def test_data_lies_on_named_volumes(self, service):
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (volume.endswith(":ro") and (ROOT / source).exists())

    def test_postgres_cannot_be_reached_from_outside(self):
        assert "ports" not in SERVICES["postgres"]
        assert SERVICES["postgres"]["networks"] == ["store"]
        assert COMPOSE["networks"]["store"]["internal"] is True
        assert SERVICES["kickserve"]["depends_on"]["postgres"]["condition"] == "service_healthy"

    def test_the_password_is_in_no_url_so_that_it_may_hold_any_character(self):
        assert "PASSWORD" not in SERVICES["kickserve"]["environment"]["DATABASE_URL"]

    def test_prometheus_gets_the_rules_and_the_key(self):
        composed = yaml.safe_load((ROOT / "ops/prometheus/compose.yml").read_text())
        alone = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())
        assert composed["rule_files"] == alone["rule_files"]
        [job] = composed["scrape_configs"]
        assert job["job_name"] == alone["scrape_configs"][0]["job_name"]
        assert f">{job['authorization']['credentials_file']}" in SERVICES["prometheus"]["command"][0]

    def test_a_missing_env_file_is_made_with_random_secrets_for_its_owner_alone(self, tmp_path):
        files = [tmp_path / name for name in ("one", "two")]
        for file in files:
            assert compose.add_missing(file) == [*compose.SECRETS]
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        values = [value for file in files for value in dotenv_values(file).values()]
        assert len(set(values)) == 6
        assert all(re.fullmatch(r"[\w-]{32}", value) for value in values), "they need no quoting in a URL"

    @pytest.mark.parametrize("end", ["\n", ""])
    def test_an_env_file_keeps_its_values_and_gets_the_missing_ones(self, tmp_path, end):
        file = tmp_path / ".env"
        before = f"# mine\nPOSTGRES_PASSWORD=\nexport API_KEY='mine'\nKICKSERVE_PORT=8000{end}"
        file.write_text(before)
        assert compose.add_missing(file) == ["POSTGRES_PASSWORD", "GRAFANA_PASSWORD"]
        assert file.read_text().startswith(before)
        assert dotenv_values(file)["API_KEY"] == "mine"
        assert compose.add_missing(file) == []


def manifests(name):
    return [each for each in yaml.safe_load_all((MANIFESTS / name).read_text()) if each]


def manifest(name):
    [only] = manifests(name)
    return only


PODS = {
    "base": manifest("base/statefulset.yaml")["spec"]["template"]["spec"],
    "kserve": manifest("kserve/inferenceservice.yaml")["spec"]["predictor"],
}


def variables(name):
    """Return the environment of the container: the values in clear, and the keys of secrets."""
    [container] = PODS[name]["containers"]
    clear = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    secret = {
        each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "value" not in each
    }
    if name == "base":
        [generator] = manifest("base/kustomization.yaml")["configMapGenerator"]
        clear = {**dict(each.split("=", 1) for each in generator["literals"]), **clear}
    return clear, secret


@pytest.fixture(params=PODS)
def name(request):
    return request.param


@pytest.fixture
def container(name):
    [container] = PODS[name]["containers"]
    return container


class TestKubernetes:
    def test_pods_run_without_root_and_without_rights(self, name, container):
        security = PODS[name]["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 1000)
        assert security["fsGroup"] == 1000, "or the volume could not be written"
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert PODS[name]["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]

    def test_settings_exist_and_are_valid(self, name):
        clear, secret = variables(name)
        assert {*clear, *secret} <= {row.variable for row in settings_rows()} | {"HF_HOME", "PROTOCOL"}
        settings = Settings.load({**clear, "API_KEY": "k", "DATABASE_URL": "postgresql://db/kicks"})
        assert settings.host == "0.0.0.0"
        plugins = {*PROJECT["entry-points"]["kickserve.plugins"]}
        assert {*clear["KICKSERVE_PLUGINS"].split(",")} <= plugins

    def test_both_ways_to_run_it_have_the_same_settings(self):
        base, kserve = variables("base")[0], variables("kserve")[0]
        # A volume that goes with its node needs no fsync.
        more = {"KICKSERVE_WORKERS": "1", "KICKSERVE_JOURNAL": "fsync"}
        assert {**kserve, **more} == {**base, "PROTOCOL": "v2"}

    def test_secrets_come_from_the_secret(self, name):
        _, secret = variables(name)
        assert secret == {key: {"name": "kickserve", "key": key} for key in ("DATABASE_URL", "API_KEY")}
        kinds = {each["kind"] for file in MANIFESTS.rglob("*.yaml") for each in manifests(file)}
        assert "Secret" not in kinds

    def test_files_lie_on_volumes_that_exist(self, name, container):
        places = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        assert places["/data"] == "data"
        assert all(Path(variables(name)[0][each]).is_relative_to("/data") for each in WRITTEN)
        claims = manifest("base/statefulset.yaml")["spec"]["volumeClaimTemplates"] if name == "base" else []
        declared = {each["name"] for each in PODS[name]["volumes"]}
        assert declared | {each["metadata"]["name"] for each in claims} == {*places.values()}

    def test_probes_ask_open_routes(self, container):
        app = create_app(Settings(api_key="k", plugins=("storage",), database_url="sqlite://"))
        routes = {path for path in app.openapi_schema.to_schema()["paths"] if "health" in path}
        probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {probe["path"] for probe in probes.values()} <= routes
        assert probes["liveness"]["path"].endswith("/live"), "a restart helps no store that is away"
        assert probes["readiness"]["path"].endswith("/ready")

    def test_ports_and_labels_agree(self, name, container):
        [port] = container["ports"]
        assert port["containerPort"] == int(variables(name)[0]["KICKSERVE_PORT"]) == Settings().port
        labels = manifest("base/statefulset.yaml")["spec"]["template"]["metadata"]["labels"]
        clients, replicas = manifests("base/services.yaml")
        for service in (clients, replicas):
            assert service["spec"]["selector"] == labels
        assert manifest("base/statefulset.yaml")["spec"]["serviceName"] == replicas["metadata"]["name"]
        policy = manifest("base/network.yaml")["spec"]
        assert policy["podSelector"]["matchLabels"] == labels
        assert manifest("base/disruption.yaml")["spec"]["selector"]["matchLabels"] == labels
        scraped = manifest("monitoring/servicemonitor.yaml")["spec"]
        assert scraped["selector"]["matchLabels"] == clients["metadata"]["labels"]
        assert scraped["selector"]["matchLabels"] != replicas["metadata"]["labels"], (
            "or each is scraped twice"
        )
        assert [each["port"] for each in scraped["endpoints"]] == [clients["spec"]["ports"][0]["name"]]

    def test_a_pod_gets_the_time_that_its_end_may_take(self, name, container):
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        ending = int(variables(name)[0]["KICKSERVE_SHUTDOWN_TIMEOUT"])
        assert PODS[name]["terminationGracePeriodSeconds"] >= pause + ending + 10

    def test_no_service_link_sets_the_port(self, name):
        """With links, Kubernetes sets KICKSERVE_PORT=tcp://10.0.0.1:80 for the Service `kickserve`."""
        assert PODS[name]["enableServiceLinks"] is False

    def test_journals_outlive_their_replicas(self):
        spec = manifest("base/statefulset.yaml")["spec"]
        assert {*spec["persistentVolumeClaimRetentionPolicy"].values()} == {"Retain"}
        assert "replicas" not in spec, "the autoscaler sets them"
        size = spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
        limit = {"KICKSERVE_JOURNAL_MAX": variables("base")[0]["KICKSERVE_JOURNAL_MAX"]}
        assert int(size.removesuffix("Gi")) * 2**30 > 1.5 * Settings.load(limit).journal_max

    @pytest.mark.parametrize("folder", [*MANIFESTS.iterdir()], ids=lambda folder: folder.name)
    def test_a_kustomization_lists_every_file_beside_it(self, folder):
        listed = manifest(folder / "kustomization.yaml")["resources"]
        assert {*listed, "kustomization.yaml"} == {file.name for file in folder.iterdir()}

    def test_ways_in_lead_to_the_service(self):
        [clients, _] = manifests("base/services.yaml")
        [rule] = manifest("ingress/ingress.yaml")["spec"]["rules"]
        [path] = rule["http"]["paths"]
        service = path["backend"]["service"]
        [route] = manifest("gateway/httproute.yaml")["spec"]["rules"]
        [port] = clients["spec"]["ports"]
        assert (service["name"], service["port"]["name"]) == (clients["metadata"]["name"], port["name"])
        assert route["backendRefs"] == [{"name": clients["metadata"]["name"], "port": port["port"]}]

    def test_the_image_is_the_one_of_this_version(self, name, container):
        [image] = manifest(f"{name}/kustomization.yaml")["images"]
        assert image["newTag"] == PROJECT["version"]
        assert image["name"] == container["image"]

    def test_the_operators_alerts_are_those_of_prometheus(self):
        rules = yaml.safe_load((ROOT / "ops" / "prometheus" / "rules.yml").read_text())
        assert manifest("monitoring/rules.yaml")["spec"] == rules


class TestSystemd:
    UNIT = (ROOT / "ops" / "systemd" / "kickserve.service").read_text()

    def test_systemd_takes_the_unit(self, tmp_path):
        program = debian.program("systemd-analyze", "systemd")
        unit = tmp_path / "kickserve.service"
        unit.write_text(self.UNIT.replace("/opt/kickserve/bin/kickserve", "/bin/true"))  # it must be there
        done = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_it_gets_the_time_that_its_end_may_take(self):
        [limit] = re.findall(r"TimeoutStopSec=(\d+)", self.UNIT)
        assert int(limit) >= Settings().shutdown_timeout + 10


CHANGELOG = "# Changelog\n\n## 1.1.0 (2026-03-01)\n\n- It flies.\n\n## 1.0.0 (2026-02-01)\n\n- It runs.\n"


class TestRelease:
    @pytest.mark.parametrize(("version", "notes"), [("1.0.0", "- It runs."), ("1.1.0", "- It flies.")])
    def test_the_notes_are_those_of_the_tag_alone(self, version, notes):
        assert release.notes(f"v{version}", CHANGELOG, version) == notes

    @pytest.mark.parametrize(
        ("tag", "version", "changelog", "words"),
        [
            ("v1.0.1", "1.0.0", CHANGELOG, "v1.0.1.*has version 1.0.0"),
            ("v2.0.0", "2.0.0", CHANGELOG, "no section '## 2.0.0 "),
            ("v1.1.0", "1.1.0", CHANGELOG.replace("2026-03-01", "unreleased"), "'unreleased' of 1.1.0"),
        ],
    )
    def test_a_tag_that_is_not_ready_is_refused(self, tag, version, changelog, words):
        with pytest.raises(SystemExit, match=words):
            release.notes(tag, changelog, version)

    def test_the_version_is_the_one_that_is_installed(self):
        printed = subprocess.check_output([sys.executable, ROOT / "ops/release.py", "version"], text=True)
        assert printed.strip() == importlib.metadata.version("kickserve")

    def test_the_source_archive_has_a_readme_for_pypi(self, tmp_path):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        [archive] = tmp_path.glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            [info] = [name for name in opened.getnames() if name.endswith("/PKG-INFO")]
            description = opened.extractfile(info).read().decode().partition("\n\n")[2]
        assert description.startswith("# kickserve")

    def test_the_citation_names_this_version(self):
        assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == PROJECT["version"]

    def test_workflows_call_parts_of_the_script_that_exist(self):
        script = (ROOT / ".ci" / "run").read_text()
        asked = {part for file in WORKFLOWS for part in re.findall(r"run: \.ci/run (\w+)", file.read_text())}
        assert asked == {"static", "tests", "wheel"}
        assert all(re.search(rf"^{part}\(\) {{", script, re.MULTILINE) for part in asked)

    def test_one_job_stands_for_all_checks(self):
        jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
        assert jobs["required"]["if"] == "always()", "or a failed check would skip it, which counts as passed"
        assert all(jobs[name]["needs"] == ["required"] for name in ("images", "space", "site"))


@pytest.fixture
def nginx(tmp_path):
    """The server of ops/docs/proxy.md, without TLS, before a service with a key."""
    debian.program("nginx", "nginx")
    [text] = [
        each.text for each in read((ROOT / "ops/docs/proxy.md").read_text()) if each.language == "nginx"
    ]
    text = re.sub(r"ssl_certificate.*\n", "", text).replace("listen 443 ssl;", "listen 7860;")
    own = "http://127.0.0.1:7860/"
    assert own in text
    with serving(tmp_path, **BARE, API_KEY="k" * 24, KICKSERVE_TRUSTED_PROXIES="127.0.0.1") as server:
        nginx = Nginx(tmp_path, [], text.replace(own, server.url.removesuffix("api/v1")))
        try:
            yield nginx
        finally:
            nginx.close()


def test_behind_nginx_as_the_document_has_it_api_and_links_are_under_the_path(nginx):
    with httpx.Client(base_url=f"{nginx.url}/kicks/api/v1") as client:
        assert client.get("/predictions").status_code == 401
        client.headers["X-API-Key"] = "k" * 24
        for _ in range(2):
            client.post("/predict", json=EXAMPLE).raise_for_status()
        page = client.get("/predictions?limit=1")
        assert page.links["next"]["url"].startswith("/kicks/api/v1/predictions?")
        many = b"\n".join([json.dumps(EXAMPLE).encode()] * 10_000)  # more than nginx takes by itself
        assert (
            client.post("/predict/batch", content=many, headers={"Content-Type": NDJSON}).status_code == 200
        )


def space(*arguments, **environment):
    command = [sys.executable, ROOT / "ops" / "space.py", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "space"
    done = space(folder)
    assert done.returncode == 0, done.stderr
    return folder


class TestSpace:
    def test_the_folder_holds_the_sources_of_the_image_and_nothing_else(self, folder):
        command = ["git", "ls-files", "--", "kickserve", "plugins"]
        code = {*subprocess.check_output(command, cwd=ROOT, text=True).split()}
        assert files(folder) == {"Dockerfile", "LICENSE", "README.md", "pyproject.toml"} | code

    def test_the_front_matter_is_one_that_the_hub_takes(self, folder):
        card = SpaceCard.load(folder / "README.md")
        data = card.data.to_dict()
        assert (data["sdk"], data["app_port"], data["license"]) == ("docker", Settings().port, "mit")
        assert not re.search(r"[\w\s]", data["emoji"]), "emoji only"
        assert 0 < len(data["short_description"]) <= 60
        assert RepoCard(card.content).text.lstrip().startswith("# kickserve")

    def test_on_a_space_the_hub_may_frame_the_page_unless_the_setting_forbids_it(self):
        def ancestors(**variables):
            return Settings.load({"SPACE_ID": "me/kicks", **variables}).frame_ancestors

        assert ancestors() == ("https://huggingface.co",)
        assert ancestors(KICKSERVE_FRAME_ANCESTORS="https://me.org") == ("https://me.org",)
        assert ancestors(KICKSERVE_FRAME_ANCESTORS="") is None

    def test_a_folder_that_is_not_empty_is_left_alone(self, tmp_path):
        (tmp_path / "mine").write_text("")
        assert "is not empty" in space(tmp_path).stderr
        assert files(tmp_path) == {"mine"}

    def test_the_upload_replaces_all_files_of_the_space(self, folder, tmp_path):
        with hub({"left_over.py": b"", ".gitattributes": b""}) as server:
            settings = {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path)}
            done = space("--upload", "me/kicks", **settings)
            assert done.returncode == 0, done.stderr
            assert server.files.keys() == files(folder) | {".gitattributes"}
            assert (server.created["type"], server.created["sdk"]) == ("space", "docker")
            assert ("/api/spaces/me/kicks/commit/main", "Bearer hf_x") in server.asked

    @pytest.mark.parametrize(
        ("token", "words"), [({}, "HF_TOKEN"), ({"HF_TOKEN": "hf_x"}, "did not take it")]
    )
    def test_a_failed_upload_is_explained_in_a_sentence(self, token, words, tmp_path):
        with hub({}, fault=(403, None)) as server:
            done = space("--upload", "me/x", HF_ENDPOINT=server.url, HF_HOME=str(tmp_path), **token)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
