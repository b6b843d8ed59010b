"""A real Prometheus and a real Alertmanager in the cluster, fed with the objects that the chart makes for the Prometheus operator.

Debian's Prometheus can't ask Kubernetes for its pods: a second container of its pod does, and hands them over in a file.
"""

import hashlib
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from .kubernetes import ROOT, Manifest, cluster_command
from .report import StepError, detail
from .world import RELEASE, RESTRICTED, SYSTEM, World, make_namespace

MONITORING: Final = "monitoring"
PROMETHEUS: Final = "prometheus"
ALERTMANAGER: Final = "alertmanager"
PORTS: Final = {PROMETHEUS: 9090, ALERTMANAGER: 9093}
TOKEN_FILE: Final = "/etc/monitoring-secret/token"  # noqa: S105  a path
"""Where Alertmanager finds the token that `Settings.token` gives it."""
OBJECTS: Final = ("monitoring.podMonitor.enabled=true", "monitoring.prometheusRule.enabled=true")
_TARGETS: Final = "/targets"
_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_CONFINED: Final = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
_RESOURCES: Final = {
    "discover": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
    PROMETHEUS: {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    ALERTMANAGER: {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
}


@dataclass(frozen=True)
class Settings:
    """How Prometheus and Alertmanager work here: all much sooner than where people are woken."""

    chart_values: Sequence[str] = ()  # those that the operator is installed with, and what the rules shall have
    interval: str = "1s"  # of scrapes and of rules
    alertmanager: Mapping[str, Any] | None = None  # its configuration; None: it tells nobody
    token: str = ""  # goes into a Secret


def install(world: World, settings: Settings | None = None) -> None:
    """Install both, or change what is installed, and wait until they are ready."""
    settings = settings or Settings()
    images = _load_images(world)
    make_namespace(world, MONITORING)
    rendered = _render_objects(world, settings.chart_values)
    groups = [group for rule in _of_kind(rendered, "PrometheusRule") for group in rule["spec"]["groups"]]
    files = {
        "prometheus.yml": yaml.safe_dump(_configure_prometheus(rendered, settings.interval)),
        "rules.yml": yaml.safe_dump({"groups": groups}),
        "discover.py": (ROOT / "examples" / "monitoring" / "discover.py").read_text(),
    }
    silent = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": ALERTMANAGER}, "stringData": {"token": settings.token}}
    world.kubernetes.apply(
        *_build_rights(),
        *_build_server(PROMETHEUS, images[PROMETHEUS], files, _prometheus_pod(world.images.indexer)),
        secret,
        *_build_server(
            ALERTMANAGER,
            images[ALERTMANAGER],
            {"alertmanager.yml": yaml.safe_dump(dict(settings.alertmanager or silent)), "token-hash": _hash(settings.token)},
            _alertmanager_pod(),
        ),
        namespace=MONITORING,
    )
    for name in (PROMETHEUS, ALERTMANAGER):
        world.kubernetes.kubectl(
            "rollout", "status", f"deployment/{name}", f"--namespace={MONITORING}", "--timeout=120s", timeout_seconds=130
        )
    detail("Prometheus and Alertmanager run, with the rules and the targets that the chart makes")


def remove(world: World) -> None:
    """Remove both, and all that was made for them."""
    world.kubernetes.kubectl("delete", "namespace", MONITORING, "--ignore-not-found", "--timeout=120s", timeout_seconds=130)
    for kind in ("clusterrolebinding", "clusterrole"):
        world.kubernetes.kubectl("delete", kind, f"{MONITORING}-{PROMETHEUS}", "--ignore-not-found")


def ask(world: World, server: str, path: str, **parameters: str) -> Any:
    """Return what the HTTP API of Prometheus or Alertmanager answers, by way of the API server."""
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    base = f"/api/v1/namespaces/{MONITORING}/services/{server}:web/proxy"
    return json.loads(world.kubernetes.kubectl("get", "--raw", f"{base}{path}{query}"))


def query(world: World, expression: str) -> list[tuple[dict[str, str], float]]:
    """Return the labels and the value of each series that an expression gives now."""
    answer = ask(world, PROMETHEUS, "/api/v1/query", query=expression)
    return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]


def query_range(
    world: World, expression: str, start: float, end: float, step: float
) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    """Return the labels and the (Unix time, value) pairs of each series between two moments."""
    times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
    answer = ask(world, PROMETHEUS, "/api/v1/query_range", query=expression, **times)
    return [(series["metric"], [(at, float(value)) for at, value in series["values"]]) for series in answer["data"]["result"]]


def find_alerts(world: World, alert: str, state: str = "firing") -> list[Manifest]:
    """Return the alerts of this name that Prometheus holds in this state (`pending` or `firing`)."""
    alerts = ask(world, PROMETHEUS, "/api/v1/alerts")["data"]["alerts"]
    return [one for one in alerts if one["labels"]["alertname"] == alert and one["state"] == state]


def _load_images(world: World) -> dict[str, str]:
    if world.cluster is None:
        raise StepError("Prometheus and Alertmanager are made for a local cluster; an external one has its own")
    images = {}
    for name, folder in zip((PROMETHEUS, ALERTMANAGER), cluster_command("monitoring").splitlines(), strict=True):
        dockerfile = ROOT / "examples" / "monitoring" / f"{name}.Dockerfile"
        images[name] = cluster_command("build-image", f"vectorindex-{name}", folder, "--file", str(dockerfile))
        cluster_command("load-image", "--name", world.cluster, images[name])
    return images


def _render_objects(world: World, values: Sequence[str]) -> list[Manifest]:
    """Return what the chart makes for the Prometheus operator."""
    options = [f"--set={value}" for value in (*OBJECTS, "crds.enabled=false", *values)]
    text = world.kubernetes.helm("template", RELEASE, str(ROOT / "charts" / "vectorindex"), f"--namespace={SYSTEM}", *options)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def _of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def _configure_prometheus(rendered: Sequence[Manifest], interval: str) -> Manifest:
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": ["/etc/monitoring/rules.yml"],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [f"{ALERTMANAGER}.{MONITORING}.svc:{PORTS[ALERTMANAGER]}"]}]}],
        },
        "scrape_configs": [scrape for monitor in _of_kind(rendered, "PodMonitor") for scrape in make_scrapes(monitor)],
    }


def make_scrapes(monitor: Manifest) -> list[Manifest]:
    """Return the scrape configurations that the Prometheus operator makes of a PodMonitor, as far as ours use it."""
    meta, spec = monitor["metadata"], monitor["spec"]
    unknown = set(spec) - {"selector", "namespaceSelector", "podMetricsEndpoints"}
    unknown |= {key for endpoint in spec["podMetricsEndpoints"] for key in endpoint} - {"port", "path", "honorLabels", "interval"}
    if unknown:
        raise StepError(f"PodMonitor {meta['name']} has fields that are not translated: {', '.join(sorted(unknown))}")
    scrapes = []
    for number, endpoint in enumerate(spec["podMetricsEndpoints"]):
        keep = [
            _keep(f"__meta_kubernetes_pod_label_{''.join(c if c.isalnum() else '_' for c in label)}", value)
            for label, value in spec["selector"]["matchLabels"].items()
        ]
        if not spec["namespaceSelector"].get("any"):
            keep.append(_keep("__meta_kubernetes_namespace", "|".join(spec["namespaceSelector"]["matchNames"])))
        phase = {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop"}
        targets = {"namespace": "namespace", "container": "pod_container_name", "pod": "pod_name"}
        copied = [{"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target} for target, source in targets.items()]
        scrapes.append(
            {
                "job_name": f"podMonitor/{meta['namespace']}/{meta['name']}/{number}",
                "honor_labels": endpoint.get("honorLabels", False),
                "metrics_path": endpoint["path"],
                "file_sd_configs": [{"files": [f"{_TARGETS}/*.json"], "refresh_interval": "1s"}],
                "relabel_configs": [
                    *keep,
                    _keep("__meta_kubernetes_pod_container_port_name", endpoint["port"]),
                    phase,
                    *copied,
                    {"target_label": "job", "replacement": f"{meta['namespace']}/{meta['name']}"},
                    {"target_label": "endpoint", "replacement": endpoint["port"]},
                ],
            }
        )
    return scrapes


def _keep(source: str, value: str) -> Manifest:
    return {"source_labels": [source], "regex": value, "action": "keep"}


def _build_rights() -> list[Manifest]:
    """Return the account of Prometheus, which may see pods everywhere and nothing else."""
    name = f"{MONITORING}-{PROMETHEUS}"
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": PROMETHEUS}},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": PROMETHEUS, "namespace": MONITORING}],
        },
    ]


def _prometheus_pod(python_image: str) -> Manifest:
    """Return what is special about the pod: only the container that asks for pods has a token, of an account that sees no more."""
    discover = {
        "name": "discover",
        "image": python_image,  # any image with Python would do, this one is there already
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/etc/monitoring/discover.py", f"{_TARGETS}/pods.json"],
        "resources": _RESOURCES["discover"],
        "securityContext": _CONFINED,
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/monitoring"},
            {"name": "targets", "mountPath": _TARGETS},
            {"name": "account", "mountPath": _ACCOUNT},
        ],
    }
    token = {"serviceAccountToken": {"path": "token"}}
    authority = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    return {
        "serviceAccountName": PROMETHEUS,
        "args": ["--config.file=/etc/monitoring/prometheus.yml", "--storage.tsdb.path=/data"],
        "mounts": {"targets": _TARGETS},
        "volumes": [{"name": "targets", "emptyDir": {}}, {"name": "account", "projected": {"sources": [token, authority]}}],
        "containers": [discover],
    }


def _alertmanager_pod() -> Manifest:
    return {
        "serviceAccountName": "default",
        "args": ["--config.file=/etc/monitoring/alertmanager.yml", "--storage.path=/data", "--cluster.listen-address="],
        "mounts": {"secret": TOKEN_FILE.rpartition("/")[0]},
        "volumes": [{"name": "secret", "secret": {"secretName": ALERTMANAGER}}],
        "containers": [],
    }


def _build_server(name: str, image: str, files: Mapping[str, str], special: Manifest) -> list[Manifest]:
    """Return configuration, Deployment and Service of one of them; a changed configuration starts another pod."""
    labels = {"app.kubernetes.io/name": name}
    mounts = {"config": "/etc/monitoring", "data": "/data", **special["mounts"]}
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": special["args"],
        "ports": [{"name": "web", "containerPort": PORTS[name]}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": "web"}, "periodSeconds": 1},
        "resources": _RESOURCES[name],
        "securityContext": _CONFINED,
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
    }
    pod = {
        "serviceAccountName": special["serviceAccountName"],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": RESTRICTED | {"fsGroup": 65532},
        "containers": [container, *special["containers"]],
        "volumes": [{"name": "config", "configMap": {"name": name}}, {"name": "data", "emptyDir": {}}, *special["volumes"]],
    }
    template = {"metadata": {"labels": labels, "annotations": {"monitoring/revision": _hash(json.dumps(dict(files)))}}, "spec": pod}
    deployment = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"name": "web", "port": PORTS[name], "targetPort": "web"}]}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(files)},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels}, "spec": service},
    ]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
