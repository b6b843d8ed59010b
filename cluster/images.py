"""Build images from ordinary Dockerfiles without docker and without pulling any, and import them into a running node."""

import ast
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import packages
from .archive import write_archive
from .dockerfile import find_inputs, hash_inputs
from .errors import ClusterError
from .paths import cache, images
from .process import SEARCH_PATH, exclusive, heartbeat_run, pip, run, wait_for
from .progress import heartbeat, say

SUITE = "bookworm"
BASE_IMAGE = "localhost/python-base:local"
BASE_PACKAGES = ("python3", "python3-pip", "python3-venv", "ca-certificates")
# Change it when the content of the base changes, so that a cached one is made anew and images on it are rebuilt.
BASE_EDITION = "1"
KEPT_ARCHIVES = 3  # of each name, the newest
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout", "timeout", "retries", "no-index")
_FIXED_TIME = 1_700_000_000
_SHOWN_COLUMNS = 120
_SHOWN_LINES = 15
# More layers than this, and the store is made anew: every change of a source file leaves some behind.
_MAX_LAYERS = 300


def base_archive() -> Path:
    """Return where the archive of the base image is kept."""
    return images() / f"python-base-{SUITE}-{BASE_EDITION}.tar"


def archive_of(image: str) -> Path:
    """Return where the archive of a built image is kept."""
    match = re.fullmatch(r"localhost/([a-z0-9][a-z0-9._-]*):([a-z0-9][a-z0-9._-]*)", image)
    if match is None:
        raise ClusterError(f"an image here is called localhost/NAME:TAG, as build-image prints it, got {image!r}")
    return images() / f"{match[1]}_{match[2]}.tar"


def base_command(target: Path) -> list[str]:
    """Return the command that makes a root file system from Debian packages.

    It looks enough like `python:slim-bookworm` for an ordinary Dockerfile to build on it.
    """
    excluded = ("doc", "man", "locale", "info")
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(BASE_PACKAGES)}",
        *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in excluded),
        "--customize-hook=ln -s /usr/bin/python3 $1/usr/local/bin/python",
        "--customize-hook=rm -f $1/usr/lib/python3*/EXTERNALLY-MANAGED",  # this image is ours: pip may install into it
        "--customize-hook=touch $1/etc/pip.conf",  # so that a build can mount one over it and leaves no trace
        "--format=tar",
        SUITE,
        str(target),
    ]


def make_base() -> Path:
    """Make the base image, once, and return its archive."""
    archive = base_archive()
    if archive.exists():
        return archive
    packages.require(("mmdebstrap",))
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".base-") as folder:
        layer = Path(folder) / "layer.tar"
        result = heartbeat_run("making the base image from Debian packages", base_command(layer), os.environ | {"PATH": SEARCH_PATH})
        if result.returncode:
            raise ClusterError(f"mmdebstrap failed; is a Debian mirror reachable? {result.stderr.strip().splitlines()[-3:]}")
        write_archive(archive, BASE_IMAGE, layer, {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["python3"]})
    return archive


def build_image(name: str, context: Path, dockerfile: Path, arguments: Mapping[str, str] | None = None) -> str:
    """Build an image unless its inputs are those of a cached one, and return its full name, whose tag is a hash of the inputs."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ClusterError(f"an image's name is made of lower case letters, digits, dots and hyphens, got {name!r}")
    if not dockerfile.is_file():
        raise ClusterError(f"there is no {dockerfile}; name one with -f")
    values = dict(arguments or {})
    inputs = find_inputs(context, dockerfile)
    image = f"localhost/{name}:{hash_inputs(dockerfile, inputs, values, base_archive().name)}"
    archive = archive_of(image)
    if archive.exists():
        archive.touch()  # the newest are kept
        return image
    packages.require(("buildah", "mmdebstrap", "util-linux"))
    if os.geteuid() != 0:
        raise ClusterError("building images needs root, for the overlay file system")
    with exclusive(cache() / "images.lock", "another image build to end"):
        if not archive.exists():
            started = time.monotonic()
            _build(image, archive, inputs, dockerfile, values)
            say(f"built {image} in {time.monotonic() - started:.0f} s, {archive.stat().st_size >> 20} MiB")
            _prune(name)
    return image


def _build(image: str, archive: Path, inputs: Mapping[str, Path], dockerfile: Path, arguments: Mapping[str, str]) -> None:
    base = make_base()
    _limit_store()
    base_name = f"{BASE_IMAGE}-{BASE_EDITION}"
    try:
        buildah("inspect", "--type=image", base_name)
    except ClusterError:
        buildah("pull", f"oci-archive:{base}:{BASE_IMAGE}")
        buildah("tag", BASE_IMAGE, base_name)
    say(f"building {image}")
    with _staged(inputs) as context, _pip_files() as volumes:
        command = _buildah_command(
            "build",
            "--isolation=chroot",  # no second container runtime: the steps run in a chroot
            "--network=host",
            "--pull-never",
            "--layers",
            "--format=oci",
            f"--build-arg=BASE={base_name}",
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            *volumes,
            f"--file={dockerfile.resolve()}",
            f"--tag={image}",
            str(context),
        )
        _run_build(command, image, archive.with_suffix(".log"))
    partial = archive.with_name(f".{archive.name}.{os.getpid()}")
    # Docker's archive format, because buildah leaves it uncompressed: faster here, and faster to import.
    buildah("push", image, f"docker-archive:{partial}:{image}")
    partial.rename(archive)


def _run_build(command: list[str], image: str, log: Path) -> None:
    """Run buildah, show its steps, and keep all it says in a log, of which a failure shows the end."""
    step = "no step yet"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w") as file,
        heartbeat(lambda seconds: f"building {image}, {seconds:.0f} s so far: {step}"),
        subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        for line in process.stdout or ():
            file.write(line)
            if "STEP " in line:
                step = line.strip()[:_SHOWN_COLUMNS]
                say(f"  {step}")
    if process.returncode:
        shown = "".join(log.read_text().splitlines(keepends=True)[-_SHOWN_LINES:])
        raise ClusterError(f"the build of {image} failed at {step}; all it said is in {log}, last:\n{shown}")


def import_archive(archive: Path, pid: int, programs: Path) -> None:
    """Import an archive into the node whose first process is `pid`."""
    _ctr(pid, programs, "images", "import", archive)


def load_image(image: str, pid: int, programs: Path) -> bool:
    """Import a built image into a node unless it is there; tell whether it was imported."""
    if image in _ctr(pid, programs, "images", "list", "--quiet", f"name=={image}").split():
        return False
    archive = archive_of(image)
    if not archive.exists():
        raise ClusterError(f"there is no archive of {image}; build it with: python3 -m cluster build-image")
    with heartbeat(lambda seconds: f"loading {image}, {seconds:.0f} s so far"):
        import_archive(archive, pid, programs)
    return True


def tag_image(image: str, name: str, pid: int, programs: Path) -> None:
    """Give an image that is in a node another name there, too."""
    _ctr(pid, programs, "images", "tag", "--force", image, name)


def _ctr(pid: int, programs: Path, *arguments: str | Path) -> str:
    """Talk to the node's containerd, whose socket lies in a tmpfs that only the node sees: go through /proc."""
    socket = Path(f"/proc/{pid}/root/run/containerd/containerd.sock")
    wait_for("the container runtime", socket.exists, timeout_seconds=60, interval_seconds=0.02)
    return run(programs / "ctr", f"--address={socket}", "--namespace=k8s.io", *arguments)


def _buildah_command(*arguments: str) -> list[str]:
    """Return a buildah command with a store of its own, in a mount namespace of its own: what it mounts vanishes with it.

    The overlay driver needs root, as does the node; vfs would copy all of the base for every step of a Dockerfile.
    """
    store = cache() / "containers"
    return ["unshare", "--mount", "buildah", f"--root={store}", f"--runroot={store}/run", "--storage-driver=overlay", *arguments]


def _limit_store() -> None:
    layers = cache() / "containers" / "overlay"
    if layers.exists() and sum(1 for _ in layers.iterdir()) > _MAX_LAYERS:
        say("the image builder's store holds many old layers; starting a new one")
        shutil.rmtree(cache() / "containers")


def buildah(*arguments: str) -> str:
    """Run buildah to its end and return its output."""
    return run(*_buildah_command(*arguments))


@contextlib.contextmanager
def _staged(inputs: Mapping[str, Path]) -> Iterator[Path]:
    """Copy the inputs, and nothing else, to a folder with fixed times, so that equal inputs make equal layers in any clone."""
    with tempfile.TemporaryDirectory(prefix="vectorindex-context-") as name:
        folder = Path(name)
        for path, source in inputs.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
            os.utime(target, (_FIXED_TIME, _FIXED_TIME))
        for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            inner.chmod(0o755)
            os.utime(inner, (_FIXED_TIME, _FIXED_TIME))
        yield folder


@contextlib.contextmanager
def _pip_files() -> Iterator[list[str]]:
    """Give build steps the host's pip settings, as files that are there while they run and not in the image."""
    settings, bundle = pip_settings(run(*pip(), "config", "list"))
    with tempfile.TemporaryDirectory(prefix="vectorindex-pip-") as folder:  # readable by us only: an index address may hold a password
        conf = Path(folder) / "pip.conf"
        conf.write_text(settings)
        volumes = [f"--volume={conf}:/etc/pip.conf:ro"]
        if Path(bundle).exists():
            volumes.append(f"--volume={bundle}:{_CA_BUNDLE}:ro")
        yield volumes


def pip_settings(listing: str) -> tuple[str, str]:
    """Turn the output of `pip config list` into the text of a pip.conf, and name the CA bundle.

    So a build installs from the same index as its developer, and no index is named in a Dockerfile or an image. Folders of the host
    (find-links) are not passed on.
    """
    wanted: dict[str, str] = {}
    bundle = _CA_BUNDLE
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in _PIP_SETTINGS:
            wanted[name] = str(ast.literal_eval(value))
        elif name == "cert":
            bundle = str(ast.literal_eval(value))
    lines = ["[global]", f"cert = {_CA_BUNDLE}", "disable-pip-version-check = true", "root-user-action = ignore"]
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in wanted.items())]) + "\n", bundle


def _prune(name: str) -> None:
    """Keep the newest archives of a name; older ones can be built again."""
    archives = sorted(images().glob(f"{name}_*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for archive in archives[KEPT_ARCHIVES:]:
        archive.unlink(missing_ok=True)
        archive.with_suffix(".log").unlink(missing_ok=True)
