"""The system packages that a cluster needs: which they are, which are missing, and how they are installed."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError
from .process import SEARCH_PATH, heartbeat_run, pip


@dataclass(frozen=True)
class Package:
    """A Debian package, and how to see that what it gives is there, whatever put it there."""

    name: str
    is_present: Callable[[], bool]
    use: str


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name, path=SEARCH_PATH) is not None


def _file(path: str) -> Callable[[], bool]:
    return lambda: Path(path).exists()


def _has_pip() -> bool:
    try:
        pip()
    except ClusterError:
        return False
    return True


PACKAGES = (
    Package("ca-certificates", _file("/etc/ssl/certs/ca-certificates.crt"), "fetching over TLS"),
    Package("openssl", _program("openssl"), "certificates of the API server"),
    Package("python3-pip", _has_pip, "fetching pinned packages"),
    Package("python3-venv", lambda: importlib.util.find_spec("ensurepip") is not None, "virtual environments"),
    Package("util-linux", _program("unshare"), "namespaces of the node"),
    Package("mount", _program("mount"), "mounts of the node"),
    Package("hostname", _program("hostname"), "name of the node"),
    Package("iproute2", _program("ip"), "network of the node"),
    Package("iptables", _program("iptables"), "NetworkPolicy"),
    Package("nftables", _program("nft"), "services"),
    Package("runc", _program("runc"), "containers"),
    Package("containernetworking-plugins", _file("/usr/lib/cni/ptp"), "network of the pods"),
    Package("busybox-static", _program("busybox"), "the container that holds a pod's namespaces"),
    Package("buildah", _program("buildah"), "image builds"),
    Package("mmdebstrap", _program("mmdebstrap"), "the base image"),
)
CONTROL_PLANE_NAMES = ("ca-certificates", "openssl", "python3-pip")


def missing_packages(packages: Sequence[Package] = PACKAGES) -> list[str]:
    """Return the names of the packages whose use is not there."""
    return [package.name for package in packages if not package.is_present()]


def install_command(names: Sequence[str]) -> list[str]:
    """Return the command that installs packages."""
    return ["apt-get", "install", "--yes", "--no-install-recommends", *names]


def missing_sentence(names: Sequence[str]) -> str:
    """Say what to do about missing packages."""
    return f"system packages are missing; run as root: apt-get update && {' '.join(install_command(names))}"


def can_install() -> bool:
    """Tell whether this process may install Debian packages."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def require(names: Sequence[str] | None = None) -> None:
    """Raise ClusterError with the command to run unless the packages (all, or those named) are there."""
    wanted = [package for package in PACKAGES if names is None or package.name in names]
    if absent := missing_packages(wanted):
        raise ClusterError(missing_sentence(absent))


def install(packages: Sequence[Package] = PACKAGES) -> list[str]:
    """Install what is missing and return its names; raise ClusterError with the command when this process may not."""
    absent = missing_packages(packages)
    if not absent:
        return []
    if not can_install():
        raise ClusterError(missing_sentence(absent))
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for what, command in (
        ("reading the lists of packages", ["apt-get", "update"]),
        (f"installing {', '.join(absent)}", install_command(absent)),
    ):
        result = heartbeat_run(what, command, environment)
        if result.returncode:
            raise ClusterError(f"{' '.join(command)} failed: {_tail(result)}")
    if still := missing_packages(packages):
        raise ClusterError(f"installed, but without effect: {', '.join(still)}; look at the PATH of this shell")
    return absent


def _tail(result: subprocess.CompletedProcess[str]) -> str:
    return " / ".join((result.stdout + result.stderr).strip().splitlines()[-4:])
