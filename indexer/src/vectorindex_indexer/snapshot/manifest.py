"""The manifest of a saved index: what it says, and how its text is written and read. It names every other file and is written last."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from msgspec import Struct

from vectorindex_indexer.config import IndexSpec, IndexType, Quantization
from vectorindex_indexer.errors import SnapshotError
from vectorindex_indexer.keys import IdKind

MANIFEST: Final = "manifest.json"
FORMAT: Final = 2

MISSING: Final = "Missing"  # no saved index is there: the normal first start
MANIFEST_INVALID: Final = "ManifestInvalid"
WRONG_INDEX: Final = "WrongIndex"  # a good one, but of another index, or built by another spec
CHECKSUM_MISMATCH: Final = "ChecksumMismatch"  # a file has other bytes than were saved
INCONSISTENT: Final = "Inconsistent"  # a file is gone, or the parts don't fit each other
NO_SPACE: Final = "NoSpace"
NOT_WRITABLE: Final = "NotWritable"
NOT_READABLE: Final = "NotReadable"

FILE_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,150}\.bin")

_LIMIT_BYTES: Final = 2**20


@dataclass(frozen=True)
class SavedAsOf:
    """The as-of point of what was saved; the fields of `rows.AsOf` as text."""

    snapshot: str
    incarnation: str
    fingerprint: str
    at: str  # RFC 3339, UTC


@dataclass(frozen=True)
class SavedMeta:
    """What a saved index says about itself."""

    name: str
    uid: str
    identity_hash: str
    digest_spec: str
    generation: int
    root_digest: str
    as_of: SavedAsOf
    proven_at: str  # RFC 3339, UTC; "" when never proven
    built_at: str = ""  # RFC 3339, UTC: when the build of this generation began


class SavedFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One file beside the manifest."""

    name: str
    bytes: int
    sha256: str


class SavedArray(Struct, frozen=True, forbid_unknown_fields=True):
    """One array; a long one is cut into several files, so that they can be read and verified side by side."""

    files: tuple[SavedFile, ...]
    dtype: str
    shape: tuple[int, ...]


class SavedSegment(Struct, frozen=True, forbid_unknown_fields=True):
    """One segment; `arrays` are the parts of its store."""

    token: str
    type: IndexType
    quantization: Quantization
    rows: int
    dead_rows: int
    arrays: dict[str, SavedArray]
    ids: SavedArray
    dead: SavedArray


class SavedDelta(Struct, frozen=True, forbid_unknown_fields=True):
    """The delta."""

    rows: int
    dead_rows: int
    ids: SavedArray
    codes: SavedArray
    dead: SavedArray


class Body(Struct, frozen=True, forbid_unknown_fields=True):
    """What the manifest says."""

    format: int
    meta: SavedMeta
    spec: IndexSpec
    id_kind: IdKind
    fallback: str
    live_rows: int
    segments: tuple[SavedSegment, ...]
    delta: SavedDelta
    arrays: dict[str, SavedArray]  # the ledger's

    def files(self) -> Iterable[SavedFile]:
        """Give every file that is named."""
        for segment in self.segments:
            for array in (*segment.arrays.values(), segment.ids, segment.dead):
                yield from array.files
        for array in (self.delta.ids, self.delta.codes, self.delta.dead, *self.arrays.values()):
            yield from array.files


class _Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    body: msgspec.Raw
    sha256: str  # of the body's bytes


def render_manifest(body: Body) -> bytes:
    """Return the text of a manifest, with its own checksum in it."""
    raw = msgspec.json.encode(body)
    return msgspec.json.encode(_Manifest(msgspec.Raw(raw), hashlib.sha256(raw).hexdigest()))


def read_manifest(folder: Path) -> Body:
    """Return what the manifest says. Raises SnapshotError for any but one that this program wrote and nobody changed."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            refuse(MANIFEST_INVALID, "the manifest is far too large")
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SnapshotError(MISSING, f"no index is saved in {folder}") from error
    except OSError as error:
        raise SnapshotError(NOT_READABLE, f"the manifest can't be read: {error.strerror}") from error
    try:
        manifest = msgspec.json.decode(raw, type=_Manifest)
        body = msgspec.json.decode(manifest.body, type=Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotError(MANIFEST_INVALID, f"the manifest can't be parsed: {error}") from error
    if hashlib.sha256(manifest.body).hexdigest() != manifest.sha256:
        refuse(MANIFEST_INVALID, "the manifest's own checksum is wrong")
    # Written by us means written like this: no second spelling of the same values is taken.
    if msgspec.json.encode(manifest) != raw or msgspec.json.encode(body) != bytes(manifest.body):
        refuse(MANIFEST_INVALID, "the manifest was not written by this program")
    if body.format != FORMAT:
        refuse(MANIFEST_INVALID, f"expected format {FORMAT}, got {body.format}")
    for file in body.files():
        if not FILE_NAME.fullmatch(file.name) or file.bytes < 0:
            refuse(MANIFEST_INVALID, "the manifest names a file that can't be one of ours")
    return body


def refuse(reason: str, message: str) -> NoReturn:
    """Raise SnapshotError."""
    raise SnapshotError(reason, message)
