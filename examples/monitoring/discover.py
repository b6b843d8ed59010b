"""Writes the pods that Prometheus may scrape into a file, with the labels that its own discovery of Kubernetes (`role: pod`) gives them.

Debian builds Prometheus without that discovery. There is one target for each declared port of each container. Needs Python only.
"""

import json
import os
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PERIOD_SECONDS = 1


def sanitize(name: str) -> str:
    """Return the name of a label as Prometheus writes it."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)


def describe(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the targets of a pod; none before it has an address."""
    meta, status = pod["metadata"], pod["status"]
    if not (address := status.get("podIP")):
        return []
    host = f"[{address}]" if ":" in address else address
    common = {"namespace": meta["namespace"], "pod_name": meta["name"], "pod_phase": status.get("phase", "")}
    common |= {f"pod_label_{sanitize(name)}": value for name, value in meta.get("labels", {}).items()}
    targets = []
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", []):
            labels = common | {"pod_container_name": container["name"], "pod_container_port_name": port.get("name", "")}
            targets.append(
                {
                    "targets": [f"{host}:{port['containerPort']}"],
                    "labels": {f"__meta_kubernetes_{name}": value for name, value in labels.items()},
                }
            )
    return targets


def list_pods() -> list[dict[str, Any]]:
    """Return all pods of the cluster."""
    server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    token = (ACCOUNT / "token").read_text()  # read each time: it is renewed
    request = urllib.request.Request(f"{server}/api/v1/pods", headers={"Authorization": f"Bearer {token}"})  # noqa: S310  https, as above
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=5, context=context) as answer:  # noqa: S310
        found: list[dict[str, Any]] = json.load(answer)["items"]
        return found


def main() -> None:
    """Write the file named on the command line again and again, so that Prometheus never reads half of it."""
    file = Path(sys.argv[1])
    partial = file.with_suffix(".partial")
    while True:
        try:
            partial.write_text(json.dumps([target for pod in list_pods() for target in describe(pod)]))
            partial.rename(file)
        except (OSError, ValueError) as error:  # no answer, or one that is no JSON
            print(f"pods can't be listed: {error}", flush=True)
        time.sleep(PERIOD_SECONDS)


if __name__ == "__main__":
    main()
