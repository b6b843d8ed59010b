"""Real clusters for tests: the control plane alone, or a whole node. Each ends with the process that asked for it, even by kill -9."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import binaries

ROOT = Path(__file__).resolve().parents[2]
_END_SECONDS = 60


@dataclass(frozen=True)
class RunningCluster:
    """A cluster that runs until its context ends."""

    name: str
    kubeconfig: Path

    def kubectl(self, *arguments: str | Path, text: str | None = None) -> str:
        """Run kubectl with `text` as its input and return its output; raise AssertionError with what it said when it fails."""
        result = self.try_kubectl(*arguments, text=text)
        if result.returncode:
            raise AssertionError(f"kubectl {' '.join(map(str, arguments))}: exit {result.returncode}: {result.stdout}{result.stderr}")
        return result.stdout

    def try_kubectl(self, *arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl and return what came of it, whether good or bad."""
        command = [str(self.program("kubectl")), f"--kubeconfig={self.kubeconfig}", *map(str, arguments)]
        return subprocess.run(command, text=True, capture_output=True, input=text, check=False)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return what `kubectl get` finds, as JSON."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return found

    def program(self, name: str) -> Path:
        """Return the path of kubectl, helm, ctr or another of the cluster's programs."""
        return binaries.bin_dir() / name

    def load_image(self, image: str) -> None:
        """Put an image that build-image made into the node."""
        run_cluster_command("load-image", image, "--name", self.name)


def run_cluster_command(*arguments: str) -> str:
    """Run `python -m cluster` and return what it prints; raise AssertionError with its error when it fails."""
    result = subprocess.run([sys.executable, "-m", "cluster", *arguments], cwd=ROOT, text=True, capture_output=True, check=False)
    if result.returncode:
        raise AssertionError(f"cluster {' '.join(arguments)}: {result.stderr}")
    return result.stdout.strip()


@contextlib.contextmanager
def control_plane(name: str = "", *, controllers: bool = False) -> Iterator[RunningCluster]:
    """Run etcd and a kube-apiserver on a free port of loopback, and the controller manager if asked for.

    Needs no root. Without controllers there is no default ServiceAccount, no garbage collection, and namespaces stay Terminating.
    The default name is this process's own, so that test runs side by side don't end each other's.
    """
    options = ["--with-controllers"] if controllers else []
    with _foreground("control-plane", name or f"test-control-plane-{os.getpid()}", options) as cluster:
        yield cluster


@contextlib.contextmanager
def node_cluster(name: str = "test", *, network_policy: bool = True) -> Iterator[RunningCluster]:
    """Run a whole node (needs root). A previous one of the same name is ended."""
    options = [] if network_policy else ["--no-network-policy"]
    with _foreground("up", name, options) as cluster:
        yield cluster


@contextlib.contextmanager
def _foreground(command: str, name: str, options: list[str]) -> Iterator[RunningCluster]:
    """Run `cluster COMMAND --foreground`, which prints the kubeconfig's path when all is ready and ends with us."""
    line = [sys.executable, "-m", "cluster", command, "--foreground", "--name", name, *options]
    with subprocess.Popen(line, cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        try:
            kubeconfig = process.stdout.readline().strip() if process.stdout else ""
            if not kubeconfig:
                raise AssertionError(f"{' '.join(line)} ended with exit {process.wait()}; its output on stderr says why")
            yield RunningCluster(name, Path(kubeconfig))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_END_SECONDS)
