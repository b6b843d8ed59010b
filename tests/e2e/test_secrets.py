"""Passwords appear nowhere but in Secrets: searched for last, when everything has happened that the other tests make happen."""

import base64
import secrets
from collections.abc import Iterator

import pytest

from examples.wordnet.steps import world
from examples.wordnet.steps.kubernetes import Manifest
from examples.wordnet.steps.report import StepError, wait_until
from examples.wordnet.steps.world import SEARCH, World
from tests.support import canary

PLANTED = "planted"
# What a pod that keeps no secret does: it logs it, serves it as a metric and has it in its environment.
TELL_TALE = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f'a_metric{{label="{os.environ["SECRET"]}"}} 1\\n'.encode())
    def log_message(self, *_): pass
print(os.environ["SECRET"], flush=True)
http.server.HTTPServer(("127.0.0.1", 9090), Handler).serve_forever()
"""


@pytest.fixture
def planted(scene: World) -> Iterator[str]:
    """A secret that was told in every way in which one can be; what the search must find."""
    secret = secrets.token_hex(16)
    pod = world.build_client(scene.images.indexer)
    pod["metadata"] |= {"name": PLANTED, "labels": {"vectorindex.dev/index": PLANTED}}
    container = pod["spec"]["containers"][0]
    container |= {"command": ["python3", "-u", "-c", TELL_TALE], "env": [secret_variable()], "volumeMounts": []}
    pod["spec"]["volumes"] = []
    encoded = base64.b64encode(f"postgresql://docs_reader:{secret}@postgres/app".encode()).decode()
    scene.kubernetes.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": PLANTED}, "stringData": {"password": secret}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": PLANTED, "annotations": {"plain": f"password={secret}"}}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{PLANTED}-encoded"}, "data": {"dsn": encoded}},
        build_event(secret),
        pod,
        namespace=SEARCH,
    )
    scene.kubernetes.kubectl(
        "wait", f"pod/{PLANTED}", f"--namespace={SEARCH}", "--for=condition=Ready", "--timeout=60s", timeout_seconds=70
    )
    yield secret
    for reference in (f"pod/{PLANTED}", f"secret/{PLANTED}", f"configmap/{PLANTED}", f"configmap/{PLANTED}-encoded", f"event/{PLANTED}"):
        scene.kubernetes.kubectl("delete", reference, f"--namespace={SEARCH}", "--timeout=30s")


def secret_variable() -> Manifest:
    return {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": PLANTED, "key": "password"}}}


def build_event(secret: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": PLANTED},
        "involvedObject": {"kind": "ConfigMap", "name": PLANTED, "namespace": SEARCH},
        "reason": "Planted",
        "message": f"could not connect with password {secret}",
        "type": "Normal",
    }


def test_search_finds_a_secret_in_every_place_where_one_could_be(scene: World, planted: str) -> None:
    def found() -> set[str] | None:
        places = set(canary.find(scene, {"planted": planted}))
        expected = {
            f"event of {SEARCH}/{PLANTED}: planted",
            f"log of {SEARCH}/{PLANTED}: planted",
            f"metrics of {SEARCH}/{PLANTED}: planted",
            f"environment of {SEARCH}/{PLANTED}: planted",
            f"ConfigMap {SEARCH}/{PLANTED}: planted",
            f"ConfigMap {SEARCH}/{PLANTED}-encoded: planted",
        }
        if places != expected:
            raise StepError(f"not found: {expected - places}; found beside it: {places - expected}")
        return places

    wait_until("the planted secret to be found, each time", found, 30)


def test_passwords_of_the_suite_appear_nowhere_but_in_secrets(scene: World) -> None:
    passwords = canary.passwords(scene)
    assert scene.reader_password in passwords.values()
    assert len(passwords) >= 2
    assert canary.find(scene, passwords) == []
