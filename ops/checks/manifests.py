"""Checks the manifests in ops/k8s against the schemas of Kubernetes, the Prometheus operator and KServe.

What is asked: every file as it stands, and what kustomize makes of them (`kubectl kustomize`, where there is
one). The schemas of Kubernetes come with the package kubernetes-validate. Those of the other two are below,
as far as the manifests use them: the fields and values that the sources of these projects have.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFESTS = Path(__file__).resolve().parents[1] / "k8s"
VERSIONS = (
    "1.30.0",
    kubernetes_validate.latest_version(),
)  # the first that knows a pause before SIGTERM, the last
KUSTOMIZE_OWN = "kustomize.config.k8s.io"
RENDERED = {  # what an operator would apply: folders to build from, and components beside them
    "base": (["base"], []),
    "base, hub and monitoring": (["base"], ["hub", "monitoring"]),
    "kserve": (["kserve"], []),
}

TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
COUNT = {"type": "integer", "minimum": 0}


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these fields and no others."""
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


# What a predictor has beside a pod's fields: pkg/apis/serving/v1beta1/component.go in kserve/kserve.
SCALING = {
    "minReplicas": COUNT,
    "maxReplicas": COUNT,
    "scaleTarget": COUNT,
    "scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]},
    "containerConcurrency": COUNT,
    "timeout": COUNT,
    "canaryTrafficPercent": {"type": "integer", "minimum": 0, "maximum": 100},
    "labels": TEXTS,
    "annotations": TEXTS,
}
DURATION = {"type": "string", "pattern": r"^(\d+(ms|[smhdwy]))+$"}
RULE = closed(["alert", "expr"], alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS, **{"for": DURATION})
SPECS = {
    "PrometheusRule": closed(
        ["groups"],
        groups={
            "type": "array",
            "items": closed(
                ["name", "rules"], name=TEXT, rules={"type": "array", "minItems": 1, "items": RULE}
            ),
        },
    ),
    "ServiceMonitor": closed(
        ["selector", "endpoints"],
        selector=closed(["matchLabels"], matchLabels=TEXTS),
        endpoints={
            "type": "array",
            "minItems": 1,
            "items": closed(
                ["port"],
                port=TEXT,
                path={"type": "string", "pattern": "^/"},
                interval=DURATION,
                authorization=closed(
                    ["credentials"], type=TEXT, credentials=closed(["name", "key"], name=TEXT, key=TEXT)
                ),
            ),
        },
    ),
}


def problems(manifest: dict[str, Any]) -> Iterator[str]:
    """Say what is wrong with a manifest."""
    kind = manifest.get("kind", "?")
    try:
        if kind == "InferenceService":
            _check_service_of_kserve(manifest)
        elif kind in SPECS:
            jsonschema.validate(manifest["spec"], SPECS[kind])
        else:
            _check(manifest)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        where = ".".join(map(str, error.absolute_path))
        yield f"{kind} {manifest['metadata']['name']}: {where}: {error.message}"
    except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.VersionNotSupportedError) as error:
        yield f"{kind}: {error.message}"


def _check(manifest: dict[str, Any]) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def _check_service_of_kserve(manifest: dict[str, Any]) -> None:
    """Its predictor is a pod with some fields more."""
    predictor = manifest["spec"]["predictor"]
    scaling = {name: value for name, value in predictor.items() if name in SCALING}
    jsonschema.validate(scaling, closed([], **SCALING))
    pod = {name: value for name, value in predictor.items() if name not in SCALING}
    _check({"apiVersion": "v1", "kind": "Pod", "metadata": manifest["metadata"], "spec": pod})


def manifests(text: str) -> list[dict[str, Any]]:
    """Return the manifests of a file; those that are for kustomize itself are left out."""
    found = [each for each in yaml.safe_load_all(text) if each is not None]
    return [each for each in found if not each["apiVersion"].startswith(KUSTOMIZE_OWN)]


def rendered(folders: list[str], components: list[str], command: list[str]) -> str:
    """Return what kustomize makes of folders and components.

    Raises:
        SystemExit: it can't.
    """
    with tempfile.TemporaryDirectory() as place:
        lists = {"resources": folders, "components": components}
        paths = {
            key: [os.path.relpath(MANIFESTS / name, os.path.realpath(place)) for name in names]
            for key, names in lists.items()
        }
        (Path(place) / "kustomization.yaml").write_text(yaml.safe_dump(paths))
        done = subprocess.run([*command, place], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"kustomize can't build {', '.join(folders + components)}:\n{done.stderr}")
    return done.stdout


def _kustomize() -> list[str] | None:
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    return ["kustomize", "build"] if shutil.which("kustomize") else None


def _texts() -> Iterator[tuple[str, str]]:
    for file in sorted(MANIFESTS.rglob("*.yaml")):
        yield str(file.relative_to(MANIFESTS)), file.read_text("utf-8")
    command = _kustomize()
    if command is None:
        print("no kubectl and no kustomize here: the files are checked as they stand", file=sys.stderr)
        return
    for name, (folders, components) in RENDERED.items():
        yield f"rendered: {name}", rendered(folders, components, command)


def main() -> None:
    """Check all, and say what was wrong."""
    count, wrong = 0, []
    for source, text in _texts():
        found = manifests(text)
        count += len(found)
        wrong += [f"{source}: {problem}" for each in found for problem in problems(each)]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{count} manifests fit Kubernetes {' and '.join(VERSIONS)}")


if __name__ == "__main__":
    main()
