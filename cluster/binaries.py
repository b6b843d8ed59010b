"""The cluster's programs, built from Go modules into the cache; instant when they are there.

go.mod holds nothing but `tool`, `require` and `replace` lines. k8s.io/kubernetes points its staging modules at folders of its own
repository, which a module download does not contain, hence one `replace` for each with the published version.
"""

import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

from .errors import ClusterError
from .paths import HERE, cache
from .process import exclusive
from .progress import heartbeat, minutes, say
from .toolchain import find_go
from .tools import fetch_tools

KUBERNETES_VERSION = "v1.37.2"  # the one that go.mod names

PACKAGES = {  # program: Go package
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "containerd": "github.com/containerd/containerd/v2/cmd/containerd",
    "containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    "ctr": "github.com/containerd/containerd/v2/cmd/ctr",
    "coredns": "github.com/coredns/coredns",
    "kube-network-policies": "sigs.k8s.io/kube-network-policies/cmd",
}
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")

# Of a cold build's time, roughly: compiling against linking, and the whole of it on two cores before anything is known.
_COMPILING_SHARE = 0.75
_FIRST_GUESS_SECONDS = 480.0


def linker_flags(version: str = KUBERNETES_VERSION) -> str:
    """Return the flags that stamp the version: unstamped, the API server calls itself v0.0.0 and some clients refuse it."""
    major, minor, _ = version.removeprefix("v").split(".")
    values = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "0" * 40,
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s -w", *(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())])


def build_key(go_sum: bytes) -> str:
    """Return the short hash of all that decides what is built."""
    return hashlib.sha256(go_sum + linker_flags().encode()).hexdigest()[:12]


def bin_dir() -> Path:
    """Return the folder of the programs, built or not."""
    return cache() / f"bin-{build_key((HERE / 'go.sum').read_bytes())}"


def missing(folder: Path) -> list[str]:
    """Return the names of the programs that `folder` lacks."""
    return [name for name in PACKAGES if not (folder / name).exists()]


def output_name(package: str) -> str:
    """Return the name that `go build -o FOLDER` gives a package: its last element, unless that is a major version."""
    parts = package.split("/")
    return parts[-2] if re.fullmatch(r"v\d+", parts[-1]) else parts[-1]


def build_command(go: Path, packages: list[str], target: Path) -> list[str]:
    """Return the one command that builds all packages, which lets linking overlap with compiling.

    What could change the result is fixed here, not in GOFLAGS: that stays the user's, who may need it to reach a proxy.
    """
    fixed = ["-mod=readonly", "-modcacherw", "-buildvcs=false", "-trimpath"]
    return [str(go), "build", "-v", *fixed, "-ldflags", linker_flags(), "-o", f"{target}/", *packages]


def remaining_seconds(elapsed: float, compiled: int, packages: int, linked: int, programs: int) -> float:
    """Estimate how long a build still takes from what it has done so far."""
    done = _COMPILING_SHARE * min(1.0, compiled / max(1, packages)) + (1 - _COMPILING_SHARE) * linked / max(1, programs)
    if done < 0.02:
        return max(60.0, _FIRST_GUESS_SECONDS - elapsed)
    return elapsed * (1 - done) / done


class GoCaches:
    """The caches of the Go build: private to it and removed afterwards, for they take 7 GiB.

    VECTORINDEX_GO_CACHE names a folder that is kept instead, for machines that build often.
    """

    def __init__(self) -> None:
        kept = os.environ.get("VECTORINDEX_GO_CACHE")
        self.folder = Path(kept) if kept else cache() / "go-build"
        self._keep = bool(kept)

    def environment(self) -> dict[str, str]:
        """Return the environment of the go command. No cgo: static programs, which also run inside containers."""
        own = {"CGO_ENABLED": "0", "GOCACHE": str(self.folder / "build"), "GOMODCACHE": str(self.folder / "mod"), "GOTOOLCHAIN": "local"}
        return {name: value for name, value in os.environ.items() if name != "GOROOT"} | own | {"GOWORK": "off"}

    def remove(self) -> None:
        """Delete the caches, unless the user keeps them."""
        if not self._keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def ensure() -> Path:
    """Build and fetch what is missing and return the folder of all programs, kubectl and helm among them."""
    target = bin_dir()
    if missing(target):
        with exclusive(cache() / "build.lock", "another build of Kubernetes to end"):
            if names := missing(target):  # the other build may just have made them
                build(names, target)
    _add_helm(target)
    return target


def _add_helm(target: Path) -> None:
    """Put helm beside kubectl. A cluster runs without it, so that a failure is only told."""
    if (target / "helm").exists():
        return
    try:
        helm = fetch_tools() / "helm"
    except ClusterError as error:
        say(f"no helm: {error}")
        return
    partial = target / f".helm.{os.getpid()}"
    shutil.copy2(helm, partial)
    partial.rename(target / "helm")


def build(names: list[str], target: Path) -> None:
    """Build programs into `target`; each appears under its name only when it is complete."""
    started = time.monotonic()
    go = find_go()
    caches = GoCaches()
    partial = target / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    packages = [PACKAGES[name] for name in names]
    say(f"building {len(names)} of {len(PACKAGES)} programs of Kubernetes {KUBERNETES_VERSION}; all take 8 minutes on two idle cores, once")
    with heartbeat(lambda seconds: f"downloading Go modules, {seconds:.0f} s so far"):
        total = len(_go([str(go), "list", "-deps", "-mod=readonly", "-modcacherw", *packages], caches).splitlines())
    _compile(build_command(go, packages, partial), caches, total, partial, len(names))
    for name in names:
        (partial / output_name(PACKAGES[name])).rename(target / name)
    partial.rmdir()
    caches.remove()
    say(f"built {len(names)} programs in {time.monotonic() - started:.0f} s")


def _go(command: list[str], caches: GoCaches) -> str:
    result = subprocess.run(command, cwd=HERE, env=caches.environment(), text=True, capture_output=True, check=False)
    if result.returncode:
        raise ClusterError(_failure(result.stderr.splitlines()))
    return result.stdout


def _compile(command: list[str], caches: GoCaches, total: int, partial: Path, programs: int) -> None:
    """Run go build and count the packages it names, one a line, as it compiles them."""
    compiled = 0
    last: list[str] = []
    lock = threading.Lock()
    started = time.monotonic()

    def describe(elapsed: float) -> str:
        linked = sum(1 for _ in partial.iterdir())
        with lock:
            count = compiled
        left = minutes(remaining_seconds(elapsed, count, total, linked, programs))
        return f"building: {count} of {total} packages compiled, {linked} of {programs} programs linked, {left} left"

    process = subprocess.Popen(command, cwd=HERE, env=caches.environment(), text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        with heartbeat(describe):
            for line in process.stderr or ():
                if re.match(r"^[\w.\-/]+$", line.strip()):
                    with lock:
                        compiled += 1
                else:
                    last = [*last, line.rstrip()][-20:]
            code = process.wait()
    except BaseException:
        process.terminate()
        raise
    if code:
        raise ClusterError(_failure(last))
    say(f"compiled and linked in {time.monotonic() - started:.0f} s")


def _failure(lines: list[str]) -> str:
    shown = "\n".join(line for line in lines[-8:] if not line.startswith("go: downloading"))
    return f"the Go build of Kubernetes failed; run it again when the cause is removed, it goes on where it stopped:\n{shown}"
