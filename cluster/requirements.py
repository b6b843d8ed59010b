"""Can this machine run a cluster? If not, one sentence says which part cannot run and why."""

import os
import platform
import subprocess
import sys
from pathlib import Path

from . import cgroups
from .process import SEARCH_PATH

NODE = "the local Kubernetes node"
CONTROL_PLANE = "the local Kubernetes control plane"
_PROBE = "mount --make-rprivate / && ip link add vx-probe type veth peer name vx-probe-peer && mount -t tmpfs tmpfs /mnt"


def missing() -> str | None:
    """Return the sentence that says why a node cannot run here, None if it can; packages that can be installed do not count."""
    reason = _control_plane_reason() or _node_reason()
    return f"{NODE} cannot run here: {reason}" if reason else None


def missing_for_control_plane() -> str | None:
    """Return the sentence that says why the control plane alone cannot run here, None if it can."""
    reason = _control_plane_reason()
    return f"{CONTROL_PLANE} cannot run here: {reason}" if reason else None


def _control_plane_reason() -> str | None:
    if not sys.platform.startswith("linux"):
        return f"it needs Linux, this is {platform.system()}"
    if platform.machine() not in ("x86_64", "aarch64"):
        return f"it needs an x86_64 or aarch64 machine, this is {platform.machine()}"
    return None


def _node_reason() -> str | None:
    if os.geteuid() != 0:
        return "it needs root, for namespaces, mounts and control groups"
    for path in ("/proc/self/ns/net", "/proc/self/ns/pid", "/proc/self/ns/mnt", "/dev/null", "/sys/fs/cgroup"):
        if not Path(path).exists():
            return f"there is no {path}"
    if reason := cgroups.obstacle():
        return reason
    return _namespace_reason()


def _namespace_reason() -> str | None:
    """Try what the node's start does, in namespaces that vanish at once."""
    environment = os.environ | {"PATH": SEARCH_PATH}
    command = ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--mount-proc", "sh", "-c", _PROBE]
    try:
        result = subprocess.run(command, text=True, capture_output=True, env=environment, check=False)
    except FileNotFoundError:
        return None  # util-linux is missing, which the list of packages tells
    if result.returncode == 0 or "ip: not found" in result.stderr:
        return None
    said = result.stderr.strip().splitlines()
    return f"this root may not make namespaces, mounts and network links ({said[-1] if said else 'no reason given'})"
