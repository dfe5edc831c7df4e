"""The manifests of Kubernetes: they agree with each other, with the service, and with what a cluster may ask.

Their form is checked against schemas by `just check-k8s`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import settings_rows

from kickserve.app import create_app
from kickserve.settings import Settings

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "ops" / "k8s"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_OURS = {"HF_HOME", "PROTOCOL"}  # of the hub's library, and of KServe


def read(name):
    return [each for each in yaml.safe_load_all((MANIFESTS / name).read_text()) if each]


def one(name):
    [manifest] = read(name)
    return manifest


def literals():
    [generator] = one("base/kustomization.yaml")["configMapGenerator"]
    return dict(each.split("=", 1) for each in generator["literals"])


PODS = {
    "base": one("base/statefulset.yaml")["spec"]["template"]["spec"],
    "kserve": one("kserve/inferenceservice.yaml")["spec"]["predictor"],
}


def variables(name):
    """What the container is told: the values in clear, and the keys of secrets."""
    [container] = PODS[name]["containers"]
    clear = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    secret = {
        each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "value" not in each
    }
    return ({**literals(), **clear} if name == "base" else clear), secret


@pytest.fixture(params=PODS)
def name(request):
    return request.param


@pytest.fixture
def pod(name):
    return PODS[name]


@pytest.fixture
def container(pod):
    [container] = pod["containers"]
    return container


def test_nothing_runs_as_root_or_with_more_rights_than_it_needs(pod, container):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["fsGroup"] == 1000, "or the volume could not be written"
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_memory_is_limited_and_asked_for(container):
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def test_every_setting_is_one_that_kickserve_knows_and_takes(name):
    clear, secret = variables(name)
    known = {row.variable for row in settings_rows()} | NOT_OURS
    assert {*clear, *secret} <= known
    settings = Settings.load({**clear, "API_KEY": "k", "DATABASE_URL": "postgresql://db/kicks"})
    assert settings.host == "0.0.0.0"


def test_both_ways_to_run_it_tell_it_the_same():
    base, kserve = variables("base")[0], variables("kserve")[0]
    assert {**kserve, "KICKSERVE_WORKERS": "1"} == {**base, "PROTOCOL": "v2"}


def test_the_plugins_that_are_asked_for_exist(name):
    asked = variables(name)[0]["KICKSERVE_PLUGINS"].split(",")
    assert {*asked} <= PROJECT["entry-points"]["kickserve.plugins"].keys()


def test_what_is_secret_comes_from_the_secret_and_from_nowhere_else(name):
    clear, secret = variables(name)
    assert secret == {key: {"name": "kickserve", "key": key} for key in ("DATABASE_URL", "API_KEY")}
    hidden = {
        each.metadata["variable"]
        for each in Settings.__dataclass_fields__.values()
        if each.metadata["secret"]
    }
    assert not hidden & clear.keys()
    assert not any(each["kind"] == "Secret" for file in MANIFESTS.rglob("*.yaml") for each in read(file))


def test_all_that_is_written_lies_on_a_volume(name, container):
    places = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    clear, _ = variables(name)
    written = ("KICKSERVE_JOURNAL_DIR", "KICKSERVE_PROFILE_DIR", "KICKSERVE_REPORTS", "HF_HOME")
    assert places["/data"] == "data"
    assert all(Path(clear[each]).is_relative_to("/data") for each in written)
    declared = {each["name"] for each in PODS[name]["volumes"]}
    claims = one("base/statefulset.yaml")["spec"]["volumeClaimTemplates"] if name == "base" else []
    assert declared | {each["metadata"]["name"] for each in claims} == {*places.values()}


def test_probes_ask_what_the_service_answers_without_a_key(container):
    app = create_app(Settings(api_key="k", plugins=("storage",), database_url="sqlite://"))
    open_calls = {path for path, item in app.openapi_schema.to_schema()["paths"].items() if "health" in path}
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {probe["path"] for probe in probes.values()} <= open_calls
    assert probes["liveness"]["path"].endswith("/live"), "a store that is away is no reason to restart"
    assert probes["readiness"]["path"].endswith("/ready")


def test_ports_agree(name, container):
    clear, _ = variables(name)
    [port] = container["ports"]
    assert port["containerPort"] == int(clear["KICKSERVE_PORT"]) == Settings().port
    asked = {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")}
    assert asked <= {port["name"], port["containerPort"]}


def test_services_and_policies_name_the_port_and_the_pods_that_there_are():
    labels = one("base/statefulset.yaml")["spec"]["template"]["metadata"]["labels"]
    port = PODS["base"]["containers"][0]["ports"][0]["name"]
    clients, replicas = read("base/services.yaml")
    for service in (clients, replicas):
        assert service["spec"]["selector"] == labels
        assert [each["targetPort"] for each in service["spec"]["ports"]] == [port]
    assert one("base/statefulset.yaml")["spec"]["serviceName"] == replicas["metadata"]["name"]
    assert replicas["spec"]["clusterIP"] == "None"
    policy = one("base/network.yaml")["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port}]
    assert one("base/disruption.yaml")["spec"]["selector"]["matchLabels"] == labels
    scraped = one("monitoring/servicemonitor.yaml")["spec"]
    assert scraped["selector"]["matchLabels"] == clients["metadata"]["labels"]
    assert scraped["selector"]["matchLabels"] != replicas["metadata"]["labels"], "or each is scraped twice"
    assert [each["port"] for each in scraped["endpoints"]] == [clients["spec"]["ports"][0]["name"]]


def test_a_pod_gets_the_time_that_its_end_may_take(name, pod, container):
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    ending = int(variables(name)[0]["KICKSERVE_SHUTDOWN_TIMEOUT"])  # for requests, and again for the journal
    assert pod["terminationGracePeriodSeconds"] >= pause + 2 * ending + 10


def test_no_service_of_the_same_name_gives_kickserve_a_port():
    """With service links, Kubernetes sets KICKSERVE_PORT=tcp://10.0.0.1:80 for the Service `kickserve`."""
    assert all(pod["enableServiceLinks"] is False for pod in PODS.values())


def test_journals_outlive_their_replicas():
    spec = one("base/statefulset.yaml")["spec"]
    assert {*spec["persistentVolumeClaimRetentionPolicy"].values()} == {"Retain"}
    assert "replicas" not in spec, "the autoscaler's word holds"
    assert one("base/autoscaler.yaml")["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": "kickserve",
    }
    assert (
        one("base/autoscaler.yaml")["spec"]["minReplicas"]
        > one("base/disruption.yaml")["spec"]["maxUnavailable"]
    )


def test_the_journal_fits_into_its_volume(name):
    claims = one("base/statefulset.yaml")["spec"]["volumeClaimTemplates"]
    if name == "kserve":
        [claims] = (
            [each["ephemeral"]["volumeClaimTemplate"]]
            for each in PODS[name]["volumes"]
            if "ephemeral" in each
        )
    size = claims[0]["spec"]["resources"]["requests"]["storage"]
    settings = Settings.load({"KICKSERVE_JOURNAL_MAX": variables(name)[0]["KICKSERVE_JOURNAL_MAX"]})
    assert int(size.removesuffix("Gi")) * 2**30 > 1.5 * settings.journal_max


@pytest.mark.parametrize("folder", ["base", "hub", "kserve", "monitoring"])
def test_a_kustomization_names_every_file_beside_it(folder):
    listed = one(f"{folder}/kustomization.yaml")["resources"]
    assert {*listed, "kustomization.yaml"} == {file.name for file in (MANIFESTS / folder).iterdir()}


@pytest.mark.parametrize("folder", PODS)
def test_the_image_is_the_one_of_this_version(folder):
    [image] = one(f"{folder}/kustomization.yaml")["images"]
    assert image["newTag"] == PROJECT["version"]
    assert image["name"] == PODS[folder]["containers"][0]["image"]


def test_the_operators_alerts_are_those_of_prometheus():
    rules = yaml.safe_load((ROOT / "ops" / "prometheus" / "rules.yml").read_text())
    assert one("monitoring/rules.yaml")["spec"] == rules


def test_postgres_can_be_reached():
    ports = [port for rule in one("base/network.yaml")["spec"]["egress"] for port in rule["ports"]]
    assert {"protocol": "TCP", "port": 5432} in ports
    assert {"protocol": "UDP", "port": 53} in ports
