"""The chart is what helm, Kubernetes and noti expect; values that cannot work are told."""

import json
import re
import tomllib
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from noti import __version__
from noti.certificates.names import claims, name_rejection
from noti.config import Config, is_secret, variable_of
from noti.kubernetes.labels import ROLE_LABELS, SERVE_LABEL, TERM_ANNOTATION
from tests.certificates.authority import CLIENT, SERVER, Wanted, authority, issue
from tests.k8s.rendering import (
    CHART,
    GOLDEN,
    HERE,
    VALUES,
    Manifest,
    environment,
    objects,
    of_kind,
    render,
    rendered,
    rendered_text,
    rendered_with,
    run_helm,
    the,
    values_file,
)
from tests.kubernetes.memory_api import RIGHTS

pytestmark = pytest.mark.helm

KUBERNETES = ("1.27", "1.33", "1.37")
"""The oldest that the chart allows, that of the helm at hand, the newest that is described."""

USAGES = {"server auth": SERVER, "client auth": CLIENT}

CANNOT_WORK = [
    (["nats.url="], "nats.url is empty: set it to where your NATS servers are"),
    (["nats.url=nats://me:secret@nats:4222"], "put it into a secret"),
    (["tls.enabled=true"], "set tls.existingSecret to a secret that has one, or tls.certManager"),
    (["httpTls.enabled=true"], "set httpTls.existingSecret"),
    (["tls.enabled=true", "tls.certManager.enabled=true"], "name the Issuer or ClusterIssuer"),
    (["tls.certManager.enabled=true"], "set tls.enabled=true"),
    (
        ["tls.enabled=true", "tls.existingSecret=a", "tls.certManager.enabled=true"],
        "choose where its certificate comes from",
    ),
    (["tls.enabled=true", "tls.existingSecret=a"], "set operator.tls.existingSecret"),
    (
        ["termination.drainSeconds=120", "termination.gracePeriodSeconds=60"],
        "termination.gracePeriodSeconds (60) is too short: leaving the cluster (30), draining"
        " browsers (120) and stopping (12) take 162; set it to that or more",
    ),
    (["operator.enabled=false", "leaderServesBrowsers=false"], "needs operator.enabled=true"),
    (["config.heartbeat_interval_ms=400"], "two lost heartbeats would start an election"),
    (["ingress.enabled=true", "ingress.readTimeoutSeconds=15"], "four times as much is good"),
    (["ingress.enabled=true", "ingress.hosts=null"], "at least one host"),
    (["httpRoute.enabled=true"], "needs httpRoute.parentRefs"),
    (["nats.tls.clientCertificate=true"], "needs nats.tls.existingSecret"),
    (["nats.auth.existingSecret=a", "nats.auth.type=userPassword"], "nats.auth.user is empty"),
    (["extraEnv[0].name=NOTI_JOIN", "extraEnv[0].value=a"], "settings of noti belong into config"),
    (["fullnameOverride=" + "n" * 53], "need a name of 52 or less"),
    (["tokens.existingSecret=a", "tokens.publisherKey="], "name the key of the secret"),
    (["tokens.subscriberKey=a"], "tokens.existingSecret is empty"),
    (["replcias=3"], "additional properties 'replcias' not allowed"),
    (["config.histroy_size=3"], "additional properties 'histroy_size' not allowed"),
    (["termination.drainSeconds=1000"], "maximum"),
]


@pytest.mark.parametrize("values", VALUES)
def test_helm_finds_no_fault(values: str) -> None:
    done = run_helm("lint", "--strict", "--values", values_file(values), str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUES)
def test_the_rendering_is_the_one_that_was_reviewed(values: str) -> None:
    """After a wanted change: just k8s-golden, and read the difference."""
    assert rendered_text(values) == (GOLDEN / f"{values}.yaml").read_text()


def test_every_golden_rendering_has_values() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.yaml")) == VALUES


@pytest.mark.parametrize("values", VALUES)
def test_kubernetes_takes_every_object(values: str) -> None:
    for manifest in rendered(values):
        check(manifest)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    """They would be of no use if they took everything."""
    manifests = rendered("cert-manager") + rendered("gateway")
    for kind in ("StatefulSet", "NetworkPolicy", "Certificate", "HTTPRoute", "ServiceMonitor"):
        manifest = of_kind(manifests, kind)[0]
        check(manifest)
        manifest["spec"]["misspelt"] = 1
        with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
            check(manifest)


def check(manifest: Manifest) -> None:
    """Raise a validation error if Kubernetes, or the owner of a kind, would."""
    check_text(json.dumps(manifest))


@cache
def check_text(text: str) -> None:
    """Check each object once: most are the same, whatever the values."""
    manifest: Manifest = json.loads(text)
    kind = manifest["kind"]
    if kind == "LeaderStatusChecker":
        crd = yaml.safe_load((CHART / "crds/leaderstatuscheckers.yaml").read_text())
        jsonschema.validate(manifest, crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    elif kind in (schemas := yaml.safe_load((HERE / "schemas" / "custom.yaml").read_text())):
        jsonschema.validate(manifest["spec"], schemas[kind])
    else:
        since = "1.30" if kind.startswith("ValidatingAdmissionPolicy") else KUBERNETES[0]
        for version in KUBERNETES:
            if version >= since:
                kubernetes_validate.validate(manifest, version, strict=True)


def test_kubernetes_takes_the_definition_of_the_checker() -> None:
    crd = yaml.safe_load((CHART / "crds/leaderstatuscheckers.yaml").read_text())
    for version in KUBERNETES:
        kubernetes_validate.validate(crd, version, strict=True)


@pytest.mark.parametrize(("settings", "sentence"), CANNOT_WORK, ids=lambda each: str(each)[:60])
def test_values_that_cannot_work_fail_with_a_sentence(settings: list[str], sentence: str) -> None:
    done = render(*(part for setting in settings for part in ("--set", setting)))
    assert done.returncode != 0
    assert sentence in done.stderr


@pytest.mark.parametrize("replicas", [2, 3, 4])
def test_even_counts_are_warned_about(replicas: int) -> None:
    settings = ("--set", f"replicas={replicas}", "--dry-run=client")
    done = run_helm("install", "demo", str(CHART), *settings)
    assert done.returncode == 0, done.stderr
    warned = f"WARNING: replicas is {replicas}, an even number" in done.stdout
    assert warned is (replicas % 2 == 0)


def test_it_is_said_when_no_cluster_can_be_founded() -> None:
    done = run_helm("install", "demo", str(CHART), "--set=bootstrapExpect=5", "--dry-run=client")
    assert "WARNING: bootstrapExpect is 5 and replicas is 3" in done.stdout


@pytest.mark.parametrize(
    ("setting", "warned"),
    [
        ("anonymous=false", True),
        ("anonymous=true", False),
        ("tokens.existingSecret=keys", False),
        ("config.jwks_url=https://issuer.example/jwks.json", False),
    ],
)
def test_it_is_said_when_nobody_can_read(setting: str, warned: bool) -> None:
    done = run_helm("install", "demo", str(CHART), "--set", setting, "--dry-run=client")
    assert done.returncode == 0, done.stderr
    assert ("WARNING: nobody can read" in done.stdout) is warned


@pytest.mark.parametrize("values", VALUES)
def test_noti_takes_the_settings_of_the_pods(values: str) -> None:
    """Of the container's variables and of the file: what `noti run` would refuse fails here."""
    manifests = rendered(values)
    [container] = the(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    settings: dict[str, Any] = {}
    for config_map in of_kind(manifests, "ConfigMap"):
        settings |= tomllib.loads(config_map.get("data", {}).get("noti.toml", ""))
    given = environment(container) | {"NOTI_NAME": "demo-noti-0", "NOTI_ADVERTISE_HOST": "10.0.0.1"}
    fields = {variable_of(name): name for name in Config.model_fields}
    settings |= {fields[name]: value for name, value in given.items() if name in fields}
    unknown = {name for name in given if name.startswith("NOTI_")} - set(fields) - {"NOTI_CONFIG"}
    assert unknown == set()
    config = Config(**settings)
    assert config.name == "demo-noti-0"
    assert config.ops_addr is not None


def test_the_schema_of_config_has_every_setting_that_the_chart_does_not_make() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    free = set(schema["properties"]["config"]["properties"])
    templates = "".join(path.read_text() for path in (CHART / "templates").glob("*.*"))
    named = set(re.findall(r"NOTI_[A-Z_]+", templates))
    made = {name for name in Config.model_fields if variable_of(name) in named}
    assert free.isdisjoint(made)
    assert free | made == {name for name in Config.model_fields if not is_secret(name)}


def test_the_level_is_held_by_a_setting_and_let_go_of_by_null() -> None:
    assert "level_max = 0\n" in render("--set", "config.level_max=0").stdout
    let_go = render("--set", "config.level_max=null")
    assert let_go.returncode == 0, let_go.stderr
    assert "level_max" not in let_go.stdout


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_the_readme_has_every_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    named = set(re.findall(r"`([A-Za-z.]+)`", (CHART / "README.md").read_text()))
    heads = {name.split(".")[0] for name in named}
    assert set(values) <= heads


def test_the_certificate_lets_each_pod_be_a_node_and_nobody_else() -> None:
    """A certificate as cert-manager makes it from the chart's order."""
    manifests = rendered("cert-manager")
    ordered = the(manifests, "Certificate", "demo-noti-tls")["spec"]
    nodes = the(manifests, "StatefulSet")["spec"]
    usages = tuple(USAGES[usage] for usage in ordered["usages"] if usage in USAGES)
    made = claims(issue(Wanted(dns=tuple(ordered["dnsNames"]), usages=usages), authority()).der)
    assert made.profile == "node"
    for ordinal in range(max(nodes["replicas"], 10)):
        assert name_rejection(made, f"demo-noti-{ordinal}") is None
    refusal = name_rejection(made, "other-noti-0")
    assert refusal is not None
    assert refusal.reason == "name"


def test_the_operators_certificate_is_one_of_a_client() -> None:
    """It may ask, and cannot pass for a node."""
    ordered = the(rendered("cert-manager"), "Certificate", "-operator-tls")["spec"]
    usages = tuple(USAGES[usage] for usage in ordered["usages"] if usage in USAGES)
    made = claims(issue(Wanted(uris=tuple(ordered["uris"]), usages=usages), authority()).der)
    assert made.profile == "client"
    assert made.client_names == {"demo-noti-operator"}


def test_the_operator_has_the_rights_that_it_uses_and_no_others() -> None:
    """The tests of the operator hold it to `RIGHTS`; the chart itself makes the Lease."""
    role = the(rendered_with(), "Role", "-operator")
    given = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert given == RIGHTS - {("leases", "create")}


def test_the_lease_is_the_releases_and_the_only_one_that_the_operator_may_touch() -> None:
    """One that stays would keep the operator of the next installation from working for 15 s."""
    manifests = rendered_with()
    lease = the(manifests, "Lease")
    name = lease["metadata"]["name"]
    assert "spec" not in lease, "who holds it is the operators' own"
    [container] = the(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert f"--lease={name}" in container["args"]
    rules = the(manifests, "Role", "-operator")["rules"]
    [rule] = [rule for rule in rules if "leases" in rule["resources"]]
    assert rule["resourceNames"] == [name]


def test_of_two_operators_a_drain_takes_one() -> None:
    budgets = {
        count: [
            budget["spec"]
            for budget in of_kind(
                rendered_with(f"operator.replicas={count}"), "PodDisruptionBudget"
            )
            if budget["metadata"]["name"].endswith("-operator")
        ]
        for count in (1, 2)
    }
    assert budgets[1] == [], "a lone one could never be evicted"
    [spec] = budgets[2]
    assert spec["maxUnavailable"] == 1
    deployment = the(rendered_with(), "Deployment")["spec"]
    assert spec["selector"] == deployment["selector"]
    assert "podAntiAffinity" in deployment["template"]["spec"]["affinity"]


def test_the_operators_token_is_of_use_for_role_labels_only() -> None:
    """What a patch may change is what `noti.kubernetes.labels` changes."""
    policy = the(rendered_with(), "ValidatingAdmissionPolicy")
    variables = {one["name"]: one["expression"] for one in policy["spec"]["variables"]}
    assert json.loads(variables["roles"]) == {
        **{key: ["leader", "follower"] for key in ROLE_LABELS},
        SERVE_LABEL: ["true"],
    }
    rules = " ".join(one["expression"] for one in policy["spec"]["validations"])
    assert f'key == "{TERM_ANNOTATION}"' in rules
    [condition] = policy["spec"]["matchConditions"]
    account = the(rendered_with(), "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    assert condition["expression"].endswith(f'"system:serviceaccount:events:{account}"')
    binding = the(rendered_with(), "ValidatingAdmissionPolicyBinding")
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (["--kube-version=1.29"], False),
        (["--kube-version=1.30.2"], True),
        (["--kube-version=1.33.4-eks-1"], True),
        (["--set=operator.admissionPolicy.enabled=false"], False),
        (["--set=operator.enabled=false"], False),
    ],
)
def test_the_policy_is_made_where_kubernetes_has_it(arguments: list[str], made: bool) -> None:
    done = render(*arguments)
    assert done.returncode == 0, done.stderr
    assert bool(of_kind(objects(done.stdout), "ValidatingAdmissionPolicy")) is made


def test_nodes_may_read_their_own_statefulset_and_nothing_else() -> None:
    manifests = rendered_with()
    role = the(manifests, "Role", "demo-noti")
    [rule] = role["rules"]
    name = the(manifests, "StatefulSet")["metadata"]["name"]
    assert rule == {
        "apiGroups": ["apps"],
        "resources": ["statefulsets"],
        "resourceNames": [name],
        "verbs": ["get"],
    }
