"""What must hold for whatever the chart renders.

Enters: objects. Leaves: violations, each a sentence; none if all is well. Never: the chart's text.
"""

from collections.abc import Callable, Iterator

from noti.setting_rules import STOP_S
from tests.k8s.rendering import Manifest, environment, of_kind, pods

LATE_S = 5.0
"""Beyond what `noti leave` may take: 2 s of grace for the node's answer, and Python's start."""
SERVES = "node-role.bb-noti.io/serve-sse"


def nobody_is_root(manifests: list[Manifest]) -> Iterator[str]:
    for name, spec in pods(manifests):
        of_pod = spec.get("securityContext", {})
        for container in spec["containers"]:
            own = container.get("securityContext", {})
            both = {**of_pod, **own}
            if both.get("runAsNonRoot") is not True or not both.get("runAsUser"):
                yield f"{name} may run as root"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{name} can write to its image"
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{name} may gain privileges"
            if own.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{name} keeps capabilities"
            if both.get("seccompProfile", {}).get("type") != "RuntimeDefault":
                yield f"{name} has no seccomp profile"


def long_running_containers_are_probed(manifests: list[Manifest]) -> Iterator[str]:
    for name, spec in pods(manifests):
        if spec.get("restartPolicy") == "Never":
            continue
        for container in spec["containers"]:
            expected = {"startup": "/liveness", "liveness": "/liveness", "readiness": "/readiness"}
            for probe, path in expected.items():
                asked = container.get(f"{probe}Probe", {}).get("httpGet", {})
                # Liveness must not depend on a quorum or on NATS, and readiness does.
                if (asked.get("path"), asked.get("port")) != (path, "ops"):
                    yield f"{name}: its {probe} probe asks {asked}"


def resources_are_bounded(manifests: list[Manifest]) -> Iterator[str]:
    for name, spec in pods(manifests):
        for container in spec["containers"]:
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
                yield f"{name} requests nothing"
            if "memory" not in resources.get("limits", {}):
                yield f"{name} may take all memory"


def the_grace_period_fits(manifests: list[Manifest]) -> Iterator[str]:
    for each in of_kind(manifests, "StatefulSet"):
        spec = each["spec"]["template"]["spec"]
        [container] = spec["containers"]
        settings = environment(container)
        drain = float(settings["NOTI_SSE_DRAIN_S"])
        deadline = float(settings["NOTI_SHUTDOWN_DEADLINE_S"])
        pre_stop = container.get("lifecycle", {}).get("preStop")
        leave = 0.0
        if pre_stop is not None:
            *_, within = pre_stop["exec"]["command"]
            leave = float(within.removeprefix("--within=")) + LATE_S
        if deadline < drain + STOP_S:
            yield f"the node has {deadline:g} s to drain for {drain:g} s and to stop"
        if spec["terminationGracePeriodSeconds"] <= leave + deadline:
            yield "Kubernetes kills a pod that is still stopping"


def tokens_are_where_they_are_needed(manifests: list[Manifest]) -> Iterator[str]:
    for name, spec in pods(manifests):
        asks = name.endswith("-operator") or any("lifecycle" in each for each in spec["containers"])
        if spec.get("automountServiceAccountToken") is not asks:
            yield f"{name}: whether it gets a token should be {asks}"
        if spec.get("enableServiceLinks") is not False:
            yield f"{name} gets variables of every service"
    for account in of_kind(manifests, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"whoever uses {account['metadata']['name']} gets a token"


def roles_name_what_they_allow(manifests: list[Manifest]) -> Iterator[str]:
    if of_kind(manifests, "ClusterRole"):
        yield "there is a ClusterRole"
    for role in of_kind(manifests, "Role"):
        for rule in role["rules"]:
            for part in ("apiGroups", "resources", "verbs"):
                if "*" in rule[part]:
                    yield f"{role['metadata']['name']} allows any of {part}"
            if "secrets" in rule["resources"]:
                yield f"{role['metadata']['name']} reads secrets"


def services_find_the_nodes(manifests: list[Manifest]) -> Iterator[str]:
    [nodes] = of_kind(manifests, "StatefulSet")
    labels = nodes["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in nodes["spec"]["template"]["spec"]["containers"][0]["ports"]}
    operated = bool(of_kind(manifests, "LeaderStatusChecker"))
    for service in of_kind(manifests, "Service"):
        name, selector = service["metadata"]["name"], dict(service["spec"]["selector"])
        chosen = selector.pop(SERVES, None)
        if chosen != ("true" if operated and name.endswith("-follower") else None):
            yield f"service {name} selects {SERVES}: {chosen}"
        if not selector.items() <= labels.items():
            yield f"service {name} selects no node"
        if not {port["targetPort"] for port in service["spec"]["ports"]} <= ports:
            yield f"service {name} leads to ports that nodes do not have"
        headless = name == nodes["spec"]["serviceName"]
        if headless and service["spec"].get("publishNotReadyAddresses") is not True:
            yield "nodes that are not ready cannot find each other"
        if headless != (service["spec"].get("clusterIP") == "None"):
            yield f"service {name}: whether it is headless should be {headless}"


def nodes_start_together_and_stay_apart(manifests: list[Manifest]) -> Iterator[str]:
    [nodes] = of_kind(manifests, "StatefulSet")
    spec = nodes["spec"]
    if spec["podManagementPolicy"] != "Parallel":
        yield "the first node waits for ever to be ready, as it needs the others for that"
    if "podAntiAffinity" not in spec["template"]["spec"].get("affinity", {}):
        yield "all nodes may be on one machine"
    zones = [
        t["topologyKey"] for t in spec["template"]["spec"].get("topologySpreadConstraints", [])
    ]
    if "topology.kubernetes.io/zone" not in zones:
        yield "all nodes may be in one zone"
    own = spec["selector"]
    budgets = of_kind(manifests, "PodDisruptionBudget")
    budgets = [budget for budget in budgets if budget["spec"]["selector"] == own]
    if spec["replicas"] > 1 and [b["spec"].get("maxUnavailable") for b in budgets] != [1]:
        yield "a drain of machines may take two nodes"
    if spec["replicas"] == 1 and budgets:
        yield "a lone node could never be evicted"


def what_cannot_change_names_no_version(manifests: list[Manifest]) -> Iterator[str]:
    for each in of_kind(manifests, "StatefulSet"):
        fixed = [each["spec"]["selector"]["matchLabels"]]
        fixed += [c["metadata"]["labels"] for c in each["spec"].get("volumeClaimTemplates", [])]
        for labels in fixed:
            if {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys():
                yield "the next version cannot be installed over this one"


def names_fit(manifests: list[Manifest]) -> Iterator[str]:
    for each in manifests:
        name = each["metadata"]["name"]
        # What is in no namespace says of which one it is.
        longest = 52 if each["kind"] == "StatefulSet" else 63
        if len(name.partition(".")[0]) > longest:
            yield f"{each['kind']} {name} has {len(name)} characters"
        for key, value in each["metadata"].get("labels", {}).items():
            if len(value) > 63:
                yield f"{each['kind']} {name}: label {key} has {len(value)} characters"


def gossip_is_private(manifests: list[Manifest]) -> Iterator[str]:
    [nodes] = of_kind(manifests, "StatefulSet")
    own = nodes["spec"]["selector"]["matchLabels"]
    policies = [
        p
        for p in of_kind(manifests, "NetworkPolicy")
        if p["spec"]["podSelector"]["matchLabels"] == own
    ]
    if len(policies) != 1:
        yield "nobody protects the nodes' ports"
    for rule in [rule for policy in policies for rule in policy["spec"]["ingress"]]:
        from_nodes = rule.get("from") == [{"podSelector": {"matchLabels": own}}]
        ports = {port["port"] for port in rule["ports"]}
        if 8401 in ports and not from_nodes:
            yield "strangers reach gossip"
        if 8400 in ports and not rule.get("from"):
            yield "anybody reaches RPC"


def gossip_is_encrypted(manifests: list[Manifest]) -> Iterator[str]:
    [nodes] = of_kind(manifests, "StatefulSet")
    spec = nodes["spec"]["template"]["spec"]
    [container] = spec["containers"]
    settings = environment(container)
    folder, _, file = settings.get("NOTI_GOSSIP_KEY_FILE", "").rpartition("/")
    if settings.get("NOTI_GOSSIP_ENCRYPTION") != "required":
        yield "gossip is taken from anybody"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    for volume in spec["volumes"]:
        if volume["name"] == mounts.get(folder) and "secret" in volume:
            names = [item["path"] for item in volume["secret"]["items"]]
            if file in names and volume["secret"]["defaultMode"] == 0o440:
                return
    yield "nodes have no key for gossip, or everybody can read it"


def streams_survive_the_ingress(manifests: list[Manifest]) -> Iterator[str]:
    for ingress in of_kind(manifests, "Ingress"):
        settings = ingress["metadata"]["annotations"]
        nginx = "nginx.ingress.kubernetes.io/"
        if settings.get(f"{nginx}proxy-buffering") != "off":
            yield "events wait in a buffer"
        if int(settings.get(f"{nginx}proxy-read-timeout", "0")) <= 15:
            yield "the proxy ends quiet streams"
    for route in of_kind(manifests, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            if rule["timeouts"] != {"request": "0s", "backendRequest": "0s"}:
                yield "the gateway ends streams"


POLICIES: tuple[Callable[[list[Manifest]], Iterator[str]], ...] = (
    nobody_is_root,
    long_running_containers_are_probed,
    resources_are_bounded,
    the_grace_period_fits,
    tokens_are_where_they_are_needed,
    roles_name_what_they_allow,
    services_find_the_nodes,
    nodes_start_together_and_stay_apart,
    what_cannot_change_names_no_version,
    names_fit,
    gossip_is_private,
    gossip_is_encrypted,
    streams_survive_the_ingress,
)
