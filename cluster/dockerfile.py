"""What an image build depends on: the Dockerfile and the files of its context that it copies."""

import fnmatch
import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import ClusterError


def parse_copied(dockerfile: str) -> list[str]:
    """Return the paths that COPY and ADD take from the context, in order; what they take from other stages is left out."""
    found: list[str] = []
    for line in re.sub(r"\\\n", " ", dockerfile).splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0].upper() not in ("COPY", "ADD"):
            continue
        arguments = [word for word in words[1:] if not word.startswith("--")]
        if any(word.startswith("--from=") for word in words[1:]):
            continue
        found.extend(path for path in arguments[:-1] if path not in found)
    return found


def parse_ignored(dockerignore: str) -> list[str]:
    """Return the patterns of a .dockerignore; exceptions (`!`) are refused, for nothing here needs them."""
    patterns = [line.strip() for line in dockerignore.splitlines() if line.strip() and not line.startswith("#")]
    if any(pattern.startswith("!") for pattern in patterns):
        raise ClusterError("this build knows no exceptions (!) in .dockerignore; rewrite the pattern")
    return [pattern.strip("/") for pattern in patterns]


def is_ignored(path: str, patterns: Iterable[str]) -> bool:
    """Tell whether a path of the context, or a folder above it, matches; `**/` stands for any folders or none."""
    parts = path.split("/")
    heads = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    for pattern in patterns:
        names = [head.rpartition("/")[2] for head in heads] if pattern.startswith("**/") else heads
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) for name in names):
            return True
    return False


def find_inputs(context: Path, dockerfile: Path) -> dict[str, Path]:
    """Return the files that a build copies, by their path in the context, sorted."""
    ignore = context / ".dockerignore"
    patterns = parse_ignored(ignore.read_text()) if ignore.exists() else []
    found: dict[str, Path] = {}
    for copied in parse_copied(dockerfile.read_text()):
        sources = [context] if copied in (".", "./") else sorted(context.glob(copied.strip("/")))
        if not sources:
            raise ClusterError(f"{dockerfile} copies {copied}, which {context} does not hold")
        for source in sources:
            files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
            for file in files:
                name = file.relative_to(context).as_posix()
                if not is_ignored(name, patterns):
                    found[name] = file
    return dict(sorted(found.items()))


def hash_inputs(dockerfile: Path, inputs: Mapping[str, Path], arguments: Mapping[str, str], base: str) -> str:
    """Return the short hash of all that decides what an image holds."""
    digest = hashlib.sha256()

    def add(*parts: bytes) -> None:
        for part in parts:
            digest.update(len(part).to_bytes(8, "big") + part)

    add(base.encode(), dockerfile.read_bytes())
    for name, value in sorted(arguments.items()):
        add(name.encode(), value.encode())
    for name, file in sorted(inputs.items()):
        add(name.encode(), b"x" if file.stat().st_mode & 0o100 else b"-", file.read_bytes())
    return digest.hexdigest()[:12]
