"""What the steps stand on: a cluster with images, Postgres with the rows, the operator, and a pod that searches."""

import base64
import json
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from examples.wordnet import load

from .kubernetes import ROOT, Kubernetes, Manifest, cluster_command
from .report import StepError, detail, wait_until
from .upstream import Upstream

WORDNET: Final = ROOT / "examples" / "wordnet"
CHART: Final = ROOT / "charts" / "vectorindex"
SYSTEM: Final = "vectorindex-system"
SEARCH: Final = "search"
RELEASE: Final = "vectorindex"
INDEX: Final = "docs"
CLIENT: Final = "client"
RESTRICTED: Final = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class Images:
    """Full names of the three images."""

    operator: str
    indexer: str
    postgres: str


@dataclass
class World:
    """Everything a step needs. `cluster` is the name of the local cluster, None for an external one."""

    cluster: str | None
    kubernetes: Kubernetes
    images: Images
    resources: ExitStack = field(default_factory=ExitStack)
    reader_password: str = field(default="", repr=False)
    _upstream: Upstream | None = None

    @property
    def upstream(self) -> Upstream:
        """The database, as its owner sees it."""
        if self._upstream is None:
            raise StepError("Postgres was not set up yet")
        return self._upstream

    def set_upstream(self, upstream: Upstream) -> None:
        """Tell how the database is reached from now on."""
        self._upstream = upstream

    def close(self) -> None:
        """End what was started on this side; the cluster stays."""
        self.resources.close()


def open_world(cluster: str | None) -> World:
    """Bring up the cluster and its images; with an external cluster only look for them."""
    if cluster is None:
        return open_external()
    with ThreadPoolExecutor(2) as pool:
        starting = pool.submit(cluster_command, "up", "--name", cluster)
        building = pool.submit(build_images)
        kubeconfig, images = Path(starting.result()), building.result()
    load_images(cluster, images)
    return World(cluster, Kubernetes(Path(cluster_command("bin-dir")), kubeconfig), images)


def open_external() -> World:
    """Use the cluster of the current KUBECONFIG and the images that the environment names."""
    return World(None, Kubernetes(Path(cluster_command("tools")), None), external_images())


def load_images(cluster: str, images: Images) -> None:
    """Put the images into a local cluster."""
    for image in (images.postgres, images.operator, images.indexer):
        cluster_command("load-image", "--name", cluster, image)


def external_images() -> Images:
    """Return the images named by the environment; raise StepError when one is missing."""
    names = {name: os.environ.get(f"{name.upper()}_IMAGE", "") for name in ("operator", "indexer", "postgres")}
    if missing := [f"{name.upper()}_IMAGE" for name, image in names.items() if not image]:
        raise StepError(f"CLUSTER=external needs images that the cluster can pull; set {', '.join(missing)}")
    return Images(**names)


def build_images() -> Images:
    """Build the three images from their Dockerfiles, unless they are cached."""

    def build(name: str, dockerfile: Path) -> str:
        return cluster_command("build-image", name, str(ROOT), "--file", str(dockerfile))

    return Images(
        operator=build("vectorindex-operator", ROOT / "operator" / "Dockerfile"),
        indexer=build("vectorindex-indexer", ROOT / "indexer" / "Dockerfile"),
        postgres=build("vectorindex-postgres", ROOT / "examples" / "postgres" / "Dockerfile"),
    )


def set_up_namespaces(world: World) -> None:
    """Make both namespaces."""
    for name in (SYSTEM, SEARCH):
        make_namespace(world, name)


def make_namespace(world: World, name: str) -> None:
    """Make a namespace, under the strictest Pod Security there is."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    world.kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def set_up_postgres(world: World) -> None:
    """Start Postgres with random passwords, load the rows, and leave a connection open."""
    kubernetes = world.kubernetes
    superuser = _ensure_credentials(kubernetes, "postgres-superuser", "postgres")
    world.reader_password = _ensure_credentials(kubernetes, "docs-reader", load.READER)
    kubernetes.apply((WORDNET / "postgres.yaml").read_text().replace("IMAGE", world.images.postgres), namespace=SEARCH)
    kubernetes.kubectl("rollout", "status", "statefulset/postgres", f"--namespace={SEARCH}", "--timeout=180s", timeout_seconds=190)
    upstream = world.resources.enter_context(Upstream.reach(kubernetes, SEARCH, superuser))
    world.set_upstream(upstream)
    counts = upstream.load(world.reader_password)
    dead, other = counts.tombstoned, counts.other_model_rows
    detail(f"Postgres holds {counts.rows:,} rows of the model, {dead:,} of them tombstoned, and {other:,} of another")


def _ensure_credentials(kubernetes: Kubernetes, name: str, username: str) -> str:
    """Return the password of a Secret, which is made with a random one if it is not there."""
    found = kubernetes.items("secrets", f"--namespace={SEARCH}", f"--field-selector=metadata.name={name}")
    if found:
        return base64.b64decode(found[0]["data"]["password"]).decode()
    password = secrets.token_hex(16)
    kubernetes.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"username": username, "password": password}},
        namespace=SEARCH,
    )
    return password


def install_operator(world: World, *more: str, chart: Path = CHART) -> None:
    """Install the chart or upgrade to it, with `more` values such as `logLevel=debug`, and wait until the operator is ready."""
    images = [*image_values("image", world.images.operator), *image_values("indexer.image", world.images.indexer)]
    world.kubernetes.helm(
        "upgrade",
        "--install",
        RELEASE,
        str(chart),
        f"--namespace={SYSTEM}",
        *(f"--set-string={setting}" for setting in images),  # a tag may look like a number
        *(f"--set={setting}" for setting in more),
        "--wait",
        "--timeout=150s",
    )


def image_values(key: str, image: str) -> list[str]:
    """Return the chart's values of an image: repository, and digest or tag."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return [f"{key}.repository={repository}", f"{key}.digest={digest}"]
    repository, _, tag = image.rpartition(":")
    if not repository or "/" in tag:
        raise StepError(f"expected an image with a tag or a digest, got {image!r}")
    return [f"{key}.repository={repository}", f"{key}.tag={tag}"]


def start_client(world: World, namespace: str = SEARCH) -> None:
    """Start the pod that searches."""
    script = (WORDNET / "client.py").read_text()
    world.kubernetes.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CLIENT}, "data": {"client.py": script}},
        build_client(world.images.indexer),
        namespace=namespace,
    )
    wait = ("wait", f"pod/{CLIENT}", f"--namespace={namespace}", "--for=condition=Ready", "--timeout=60s")
    world.kubernetes.kubectl(*wait, timeout_seconds=70)


def build_client(image: str) -> Manifest:
    """Return the pod that searches: any image with Python would do, this one is there already."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": CLIENT, "labels": {"app.kubernetes.io/name": CLIENT}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": RESTRICTED,
            "containers": [
                {
                    "name": CLIENT,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-c", "import signal; signal.pause()"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "scripts", "mountPath": "/scripts"}],
                }
            ],
            "volumes": [{"name": "scripts", "configMap": {"name": CLIENT}}],
        },
    }


def index_manifest() -> Manifest:
    """Return the VectorIndex of the example."""
    manifest: Manifest = yaml.safe_load((WORDNET / "vectorindex.yaml").read_text())
    return manifest


def delete_index(world: World, name: str) -> None:
    """Delete a VectorIndex and wait until its pods are gone, as its owner references have them go."""
    world.kubernetes.kubectl("delete", "vidx", name, f"--namespace={SEARCH}", "--ignore-not-found", "--timeout=60s", timeout_seconds=70)
    wait_until(f"the pods of {name} to be gone", lambda: not pods_of(world, name), 60)


def pods_of(world: World, index: str) -> list[Manifest]:
    """Return the pods of an index."""
    pods = world.kubernetes.items("pods", f"--namespace={SEARCH}", f"--selector=vectorindex.dev/index={index}")
    return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))


def operators(world: World) -> list[str]:
    """Return the names of the operator's pods."""
    pods = world.kubernetes.items("pods", f"--namespace={SYSTEM}", "--selector=app.kubernetes.io/component=operator")
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def leading_operator(world: World) -> str:
    """Return the name of the pod that acts, as the Lease tells."""
    holder = world.kubernetes.get("lease", RELEASE, f"--namespace={SYSTEM}")["spec"].get("holderIdentity")
    if not holder:
        raise StepError("no operator holds the Lease")
    return str(holder).partition("_")[0]


def operator_logs(world: World, lines: int = -1) -> str:
    """Return what the operators have logged, or the last lines of it."""
    own = "--selector=app.kubernetes.io/component=operator"
    return world.kubernetes.kubectl("logs", f"--namespace={SYSTEM}", own, "--prefix", f"--tail={lines}")


def conditions(world: World, index: str) -> dict[str, Manifest]:
    """Return the conditions of an index by type."""
    found = world.kubernetes.get("vidx", index, f"--namespace={SEARCH}").get("status", {}).get("conditions", [])
    return {condition["type"]: condition for condition in found}


def wait_for_condition(world: World, index: str, condition: str, timeout_seconds: int = 60) -> None:
    """Wait with kubectl until a condition is True; the error shows what it is instead."""
    try:
        world.kubernetes.kubectl(
            "wait",
            f"vidx/{index}",
            f"--namespace={SEARCH}",
            f"--for=condition={condition}",
            f"--timeout={timeout_seconds}s",
            timeout_seconds=timeout_seconds + 10,
        )
    except StepError as error:
        raise StepError(f"{error}\n{json.dumps(conditions(world, index), indent=1)}") from error


def describe_failure(world: World) -> Sequence[tuple[str, str]]:
    """Return what helps to understand a failure: (title, text) each; nothing in it is secret."""
    questions = (
        ("resources", ["get", "vidx", "--all-namespaces", "--output=yaml"]),
        ("pods", ["get", "pods", "--all-namespaces", "--output=wide"]),
        ("events", ["get", "events", "--all-namespaces", "--sort-by=.metadata.creationTimestamp"]),
        ("operator's log", ["logs", f"--namespace={SYSTEM}", "--selector=app.kubernetes.io/component=operator", "--prefix", "--tail=60"]),
        *(
            (f"log of {pod['metadata']['name']}", ["logs", f"--namespace={SEARCH}", pod["metadata"]["name"], "--tail=40"])
            for pod in _all_pods(world)
        ),
    )
    answers = []
    for title, arguments in questions:
        try:
            answers.append((title, world.kubernetes.kubectl(*arguments)))
        except StepError as error:
            answers.append((title, str(error)))
    return answers


def _all_pods(world: World) -> list[Manifest]:
    try:
        return world.kubernetes.items("pods", f"--namespace={SEARCH}")
    except StepError:
        return []
