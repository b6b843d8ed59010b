"""A client certificate from a Secret works in a pod: its key is readable by the replica, and by nobody whom libpq objects to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.wordnet.steps import world
from examples.wordnet.steps.world import SEARCH, World
from tests.support import scenes
from tests.support.tls import Authority

SECURE = "secure"
FRONT = "tls-front"
CLIENT = "reader-certificate"
FOLDER = "/run/front"


@pytest.fixture
def front(scene: World, tmp_path: Path) -> Iterator[World]:
    """Postgres behind a door that lets in only who shows a certificate of our authority."""
    authority = Authority(tmp_path / "authority")
    server, client, root = authority.issue(FRONT), authority.issue("the-replica"), authority.root.certificate.read_text()
    pod = world.build_client(scene.images.indexer)
    labels = {"app.kubernetes.io/name": FRONT}
    pod["metadata"] = {"name": FRONT, "labels": labels}
    container = pod["spec"]["containers"][0]
    container["command"] = ["python3", "/scripts/tls_front.py", FOLDER, "postgres"]
    container["readinessProbe"] = {"tcpSocket": {"port": 5432}, "periodSeconds": 1}
    container["volumeMounts"] = [{"name": "scripts", "mountPath": "/scripts"}, {"name": "certificate", "mountPath": FOLDER}]
    pod["spec"]["volumes"] = [
        {"name": "scripts", "configMap": {"name": FRONT, "items": [{"key": "tls_front.py", "path": "tls_front.py"}]}},
        {"name": "certificate", "secret": {"secretName": FRONT}},
    ]
    script = Path(__file__).with_name("tls_front.py").read_text()
    objects = (
        {"apiVersion": "v1", "kind": "Secret", "stringData": pair(server.certificate, server.key) | {"ca.crt": root}, **named(FRONT)},
        {"apiVersion": "v1", "kind": "Secret", "stringData": pair(client.certificate, client.key), **named(CLIENT)},
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"tls_front.py": script, "ca.crt": root}, **named(FRONT)},
        {"apiVersion": "v1", "kind": "Service", "spec": {"selector": labels, "ports": [{"port": 5432}]}, **named(FRONT)},
        pod,
    )
    scene.kubernetes.apply(*objects, namespace=SEARCH)
    scene.kubernetes.kubectl("wait", f"pod/{FRONT}", f"--namespace={SEARCH}", "--for=condition=Ready", "--timeout=60s", timeout_seconds=70)
    yield scene
    world.delete_index(scene, SECURE)
    for reference in (f"pod/{FRONT}", f"service/{FRONT}", f"secret/{FRONT}", f"secret/{CLIENT}", f"configmap/{FRONT}"):
        scene.kubernetes.kubectl("delete", reference, f"--namespace={SEARCH}", "--wait=false")


def named(name: str) -> dict[str, dict[str, str]]:
    return {"metadata": {"name": name}}


def pair(certificate: Path, key: Path) -> dict[str, str]:
    return {"tls.crt": certificate.read_text(), "tls.key": key.read_text()}


def test_replica_connects_with_the_key_of_a_mounted_client_certificate(front: World) -> None:
    scenes.make_table(front, SECURE)
    manifest = scenes.small_index(SECURE, replicas=1)
    manifest["spec"]["source"]["postgres"] |= {
        "host": FRONT,
        "sslMode": "VerifyFull",
        "caConfigMapRef": {"name": FRONT, "key": "ca.crt"},
        "clientCertificateSecretRef": {"name": CLIENT},
    }
    scenes.serve(front, manifest)
    assert "let in: the-replica" in front.kubernetes.kubectl("logs", FRONT, f"--namespace={SEARCH}")
    code = "import os; found = os.stat('/etc/vectorindex/tls/tls.key'); print(f'{found.st_mode & 0o7777:o} {found.st_uid} {found.st_gid}')"
    told = front.kubernetes.execute(SEARCH, f"{SECURE}-index-0", "python3", "-c", code)
    assert told.split() == ["440", "0", "65532"]
