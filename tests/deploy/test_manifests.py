"""The manifests of clusters: `ray up`'s against the schema in the installed Ray; KubeRay's keys, its probes, the image.

KubeRay's own schema has 25,000 lines and is in no package. The manifest was checked with the one of August 2026; the
keys that it has are listed here.
"""

from __future__ import annotations

import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.pages import ROOT

RAYJOB = yaml.safe_load((ROOT / "deploy/kubernetes/rayjob.yaml").read_text())
KEYS = {
    "spec": {
        *("entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "activeDeadlineSeconds"),
        *("backoffLimit", "rayClusterSpec"),
    },
    "spec.rayClusterSpec": {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"},
    "spec.rayClusterSpec.authOptions": {"mode"},
    "spec.rayClusterSpec.headGroupSpec": {"rayStartParams", "template"},
    "spec.rayClusterSpec.workerGroupSpecs": {
        *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
    },
}


def at(path: str) -> list[dict[str, Any]]:
    """The mappings at a path of the manifest."""
    found: list[Any] = [RAYJOB]
    for key in path.split("."):
        values = [each[key] for each in found]
        found = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return found


def test_the_cluster_of_ray_up_fits_rays_schema() -> None:
    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler/ray-schema.json").read_text())
    cluster = yaml.safe_load((ROOT / "deploy/ray/cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    assert cluster["max_workers"] == len(cluster["provider"]["worker_ips"])


def test_the_ray_job_has_keys_that_kuberay_knows() -> None:
    assert (RAYJOB["apiVersion"], RAYJOB["kind"]) == ("ray.io/v1", "RayJob")
    for path, keys in KEYS.items():
        assert all(set(each) == keys for each in at(path)), path
    assert all(isinstance(value, str) for group in at("spec.rayClusterSpec.headGroupSpec") for value in params(group))
    assert all(
        isinstance(value, str) for group in at("spec.rayClusterSpec.workerGroupSpecs") for value in params(group)
    )


def params(group: dict[str, Any]) -> list[object]:
    """Strings in KubeRay, also for numbers."""
    return list(group["rayStartParams"].values())


def test_the_ray_job_ends_and_asks_for_a_token() -> None:
    spec = RAYJOB["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert spec["rayClusterSpec"]["rayVersion"] == version("ray")
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for template in (group["template"]["spec"] for group in groups):
        mounted = {mount["name"] for container in template["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in template["volumes"]}


def test_the_image_has_what_kuberay_calls() -> None:
    lines = (ROOT / "deploy/Dockerfile").read_text()
    assert " wget " in lines.partition("COPY --from=build")[0].rpartition("FROM")[2]
    assert "torch" in lines
