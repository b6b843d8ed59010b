"""A support bundle: files in memory, without what looks like a credential, and how they are written as an archive or a folder."""

import io
import os
import re
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from vectorindex_cli.errors import CliError, UsageError
from vectorindex_cli.redact import redact_object, redact_text
from vectorindex_cli.resource import VectorIndex
from vectorindex_cli.version import VERSION

_ARCHIVE: Final = ".tar.gz"
_STRANGE: Final = re.compile(r"[^-\w.]")


@dataclass
class Bundle:
    """Files by path, and what could not be read."""

    files: dict[str, bytes] = field(default_factory=dict)
    not_read: list[tuple[str, str]] = field(default_factory=list)

    def add_text(self, path: str, text: str) -> None:
        """Add a text, without what looks like a credential."""
        self.files[_tame(path)] = redact_text(text).encode(errors="replace")

    def add_object(self, path: str, document: Mapping[str, Any]) -> None:
        """Add a Kubernetes object, without what looks like a credential."""
        self.files[_tame(path)] = yaml.safe_dump(redact_object(document), sort_keys=False, allow_unicode=True).encode(errors="replace")

    def note(self, what: str, why: str) -> None:
        """Remember what is missing."""
        self.not_read.append((what, redact_text(why)))


def _tame(path: str) -> str:
    """Return the path so that it stays within the bundle, whatever an API server calls its objects."""
    return "/".join(_STRANGE.sub("_", part) if part.strip(".") else "_" for part in path.split("/"))


def describe(bundle: Bundle, index: VectorIndex, now: datetime) -> str:
    """Return the page that tells what a bundle holds."""
    lines = [
        f"VectorIndex {index}, gathered at {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} by kubectl vectorindex {VERSION}",
        "",
        "No Secret was read. Left out: values of environment variables, annotations of others, and what looks like a credential.",
        "Ids of rows, names of tables, hosts and pods are in it.",
        "",
        "Files",
        *(f"  {path}  {len(bundle.files[path])} bytes" for path in sorted(bundle.files)),
    ]
    if bundle.not_read:
        lines += ["", "Not read", *(f"  {what}: {why}" for what, why in bundle.not_read)]
    return "\n".join([*lines, ""])


def choose_path(wanted: str | None, index: VectorIndex, now: datetime) -> Path:
    """Return where the bundle goes; raise UsageError when something is there."""
    default = f"vectorindex-{index.metadata.namespace}-{index.metadata.name}-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}{_ARCHIVE}"
    path = Path(wanted or default)
    if path.exists():
        raise UsageError(f"{path} is there already: choose another name with --to")
    return path


def write(bundle: Bundle, path: Path) -> int:
    """Write an archive, or a folder where the path does not end in .tar.gz, and return its bytes. Only its owner may read it."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        if path.name.endswith(_ARCHIVE):
            content = _pack(bundle, path.name.removesuffix(_ARCHIVE))
            beside.unlink(missing_ok=True)
            with open(beside, "xb", opener=_open_for_owner) as file:
                file.write(content)
            size = len(content)
        else:
            size = _unfold(bundle, beside)
        beside.rename(path)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        beside.unlink(missing_ok=True)
        raise CliError(f"can't write {path}: {error.strerror}") from error
    return size


def _open_for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _pack(bundle: Bundle, folder: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in sorted(bundle.files):
            entry = tarfile.TarInfo(str(PurePosixPath(folder, name)))
            entry.size, entry.mode = len(bundle.files[name]), 0o600
            archive.addfile(entry, io.BytesIO(bundle.files[name]))
    return packed.getvalue()


def _unfold(bundle: Bundle, folder: Path) -> int:
    folder.mkdir(mode=0o700)
    for name, content in bundle.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return sum(len(content) for content in bundle.files.values())
