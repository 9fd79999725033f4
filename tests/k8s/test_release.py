"""How image and chart are published: for two architectures, signed, from named actions."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
JOBS: dict[str, Any] = WORKFLOW["jobs"]


def step_with(job: str, text: str) -> dict[str, Any]:
    """Return the only step that uses or runs this."""
    [found] = [one for one in JOBS[job]["steps"] if text in one.get("uses", one.get("run", ""))]
    step: dict[str, Any] = found
    return step


def test_every_action_is_pinned_and_every_job_ends() -> None:
    for job in JOBS.values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|[0-9a-f]{40})", step["uses"])


def test_jobs_have_the_rights_that_they_use_and_no_others() -> None:
    assert WORKFLOW["permissions"] == {}
    assert JOBS["image"]["permissions"] == {
        "contents": "read",
        "packages": "write",
        "id-token": "write",
        "attestations": "write",
    }
    for job in JOBS:
        assert step_with(job, "actions/checkout")["with"] == {"persist-credentials": False}


def test_image_is_built_for_two_architectures_and_signed_by_its_digest() -> None:
    built = step_with("image", "docker/build-push-action")["with"]
    assert built["platforms"] == "linux/amd64,linux/arm64"
    assert (ROOT / built["file"]).exists()
    assert (built["provenance"], built["sbom"]) == ("mode=max", True)
    signed = step_with("image", "cosign sign")
    assert signed["env"]["IMAGE"].endswith("@${{ steps.build.outputs.digest }}")
    arguments = {line.partition("=")[0] for line in built["build-args"].split()}
    assert arguments & {"VERSION", "REVISION"} == set(
        re.findall(r"^ARG (VERSION|REVISION)=", (ROOT / built["file"]).read_text(), re.MULTILINE)
    )


def test_chart_says_where_it_is_published_once_that_is_known() -> None:
    """What the step changes in files is there to be changed."""
    run = step_with("chart", "helm package")["run"]
    assert "home: %s" in run
    assert "\n  repository: noti\n" in (ROOT / "k8s/chart/values.yaml").read_text()
    chart = yaml.safe_load((ROOT / "k8s/chart/Chart.yaml").read_text())
    assert chart.keys().isdisjoint({"home", "sources", "icon"})
    assert (ROOT / "k8s/icon.svg").exists()
