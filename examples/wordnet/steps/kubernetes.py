"""Runs kubectl and helm against one cluster. Everything the steps do to Kubernetes goes through here, as a person would do it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .report import StepError

ROOT = Path(__file__).resolve().parents[3]
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Kubernetes:
    """One cluster. `programs` is the folder of kubectl and helm; without `kubeconfig` it is the cluster of the environment."""

    programs: Path
    kubeconfig: Path | None

    @property
    def environment(self) -> dict[str, str]:
        """What kubectl and helm are started with."""
        environment = os.environ | {"PATH": f"{self.programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        if self.kubeconfig is not None:
            environment["KUBECONFIG"] = str(self.kubeconfig)
        return environment

    def kubectl(self, *arguments: str, text: str | None = None, timeout_seconds: float = 60) -> str:
        """Run kubectl and return its output; raise StepError with what it said when it fails."""
        return run(["kubectl", *arguments], text=text, environment=self.environment, timeout_seconds=timeout_seconds)

    def helm(self, *arguments: str, timeout_seconds: float = 180) -> str:
        """Run helm and return its output; raise StepError with what it said when it fails."""
        return run(["helm", *arguments], environment=self.environment, timeout_seconds=timeout_seconds)

    def get(self, *arguments: str) -> Manifest:
        """Return what `kubectl get ... --output=json` finds."""
        found: Manifest = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return found

    def items(self, *arguments: str) -> list[Manifest]:
        """Return the objects of a list."""
        found: list[Manifest] = self.get(*arguments)["items"]
        return found

    def apply(self, *manifests: Manifest | str, namespace: str | None = None) -> None:
        """Apply objects, given as text or as dictionaries."""
        texts = [manifest if isinstance(manifest, str) else json.dumps(manifest) for manifest in manifests]
        self.kubectl("apply", *_namespace(namespace), "--filename=-", text="\n---\n".join(texts))

    def execute(self, namespace: str, pod: str, *command: str, text: str | None = None, timeout_seconds: float = 60) -> str:
        """Run a command in a pod, with `text` as its input, and return its output."""
        return self.kubectl("exec", *_namespace(namespace), "--stdin", pod, "--", *command, text=text, timeout_seconds=timeout_seconds)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a kubectl that goes on running, with pipes for input, output and errors."""
        return subprocess.Popen(
            ["kubectl", *arguments],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )


def _namespace(namespace: str | None) -> list[str]:
    return [f"--namespace={namespace}"] if namespace else []


def run(command: Sequence[str], *, environment: dict[str, str], text: str | None = None, timeout_seconds: float = 60) -> str:
    """Run a program and return its output; raise StepError with the end of what it said when it fails or takes too long."""
    shown = " ".join(part if len(part) < 120 else f"{part[:117]}..." for part in command)
    try:
        result = subprocess.run(
            command, text=True, capture_output=True, input=text or "", env=environment, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise StepError(f"{shown}: no end after {timeout_seconds:.0f} s") from error
    except FileNotFoundError as error:
        raise StepError(f"{command[0]} is not on the PATH") from error
    if result.returncode:
        said = "\n".join((result.stderr or result.stdout).strip().splitlines()[-12:])
        raise StepError(f"{shown}: exit {result.returncode}: {said}")
    return result.stdout


def cluster_command(*arguments: str, timeout_seconds: float = 3600) -> str:
    """Run `python -m cluster ...` and return its output; its progress goes on to our standard error."""
    command = [sys.executable, "-m", "cluster", *arguments]
    result = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False, timeout=timeout_seconds)
    if result.returncode:
        raise StepError(f"python -m cluster {' '.join(arguments)}: exit {result.returncode}; the lines above say why")
    return result.stdout.strip()
