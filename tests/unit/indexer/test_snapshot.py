"""Saved indexes: what comes back is what was saved, or nothing; never something else, and never half of it."""

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import damage
from tests.support.views import build_view
from vectorindex_indexer.config import Hnsw, IndexSpec, IndexType, Ivf, Metric
from vectorindex_indexer.errors import SnapshotError
from vectorindex_indexer.index import View, code_digests, empty_view, encode
from vectorindex_indexer.snapshot import (
    MANIFEST,
    Expected,
    Saved,
    SavedAsOf,
    SavedMeta,
    discard_partial,
    load,
    read_state,
    save,
    saving,
)
from vectorindex_indexer.snapshot.files import PARTIAL

Array = NDArray[Any]
DIMENSION = 8
NO_ROWS = np.empty(0, np.int64), np.empty((0, DIMENSION), np.float32)


def make_spec(kind: IndexType = IndexType.HNSW) -> IndexSpec:
    return IndexSpec(DIMENSION, Metric.COSINE, kind, Hnsw(m=8), ivf=Ivf(nlist=2, nprobe=2))


def make_meta(generation: int = 1, name: str = "docs") -> SavedMeta:
    as_of = SavedAsOf("731:735:732", "7390/primary/1", "a1b2", "2026-11-25T09:00:01.250Z")
    return SavedMeta(name, "uid-1", "0f1e2d3c", "sha256-128/int8/bytea/1c2d", generation, "90:01-02", as_of, "2026-11-25T09:00:02Z")


def make_expected(kind: IndexType = IndexType.HNSW, **changed: Any) -> Expected:
    return replace(Expected("docs", "uid-1", "0f1e2d3c", make_spec(kind)), **changed)


def make_vectors(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


def make_view(kind: IndexType = IndexType.HNSW, seed: int = 0, generation: int = 1) -> View:
    """90 live rows: ids 0 to 99 of which 20 are dead, and 100 to 109 in the delta."""
    vectors = make_vectors(110, seed)
    ids = np.arange(110, dtype=np.int64)
    view = build_view(make_spec(kind), ids[:100], vectors[:100], generation)
    return view.change(ids[:100:5], ids[100:], encode(vectors[100:], Metric.COSINE))


def make_arrays(view: View) -> dict[str, Array]:
    """A ledger of the view's rows, and one row in quarantine."""
    ids, codes = view.live_entries()
    ids, codes = np.append(ids, 5000), np.append(codes, np.uint64(0))
    rng = np.random.default_rng(1)
    return {
        "ids": ids,
        "digests": rng.integers(0, 2**63, (ids.size, 2)).astype(np.uint64),
        "stamps": rng.integers(0, 2**63, ids.size).astype(np.uint64),
        "codes": codes,
        "quarantine": np.where(codes == 0, 1, 0).astype(np.uint8),
        "bounds": np.array([50], np.int64),
        "seals": rng.integers(0, 2**63, (2, 5)).astype(np.uint64),
    }


def equal(left: tuple[Array, ...], right: tuple[Array, ...]) -> bool:
    return [part.tolist() for part in left] == [part.tolist() for part in right]


def same(left: Saved, view: View, arrays: Mapping[str, Array]) -> bool:
    queries = make_vectors(5, seed=77)
    return (
        left.arrays.keys() == arrays.keys()
        and all(left.arrays[name].tolist() == arrays[name].tolist() for name in arrays)
        and equal(left.view.live_entries(), view.live_entries())
        and equal(left.view.search(queries, 10), view.search(queries, 10))
    )


def rewrite_manifest(folder: Path, change: Callable[[Any], None]) -> None:
    """Change the manifest's body and make its checksum anew, as somebody who can write the volume could."""
    body = json.loads((folder / MANIFEST).read_bytes())["body"]
    change(body)
    raw = msgspec.json.encode(body)
    (folder / MANIFEST).write_bytes(msgspec.json.encode({"body": msgspec.Raw(raw), "sha256": hashlib.sha256(raw).hexdigest()}))


def replace_file(folder: Path, entry: Any, content: bytes) -> None:
    """Give a file of the manifest other content, and its entry the new size and checksum."""
    (folder / entry["name"]).write_bytes(content)
    entry["bytes"], entry["sha256"] = len(content), hashlib.sha256(content).hexdigest()


def refusal(folder: Path, expected: Expected | None = None) -> str:
    with pytest.raises(SnapshotError) as caught:
        load(folder, expected or make_expected())
    return caught.value.reason


# --- round trip ---


@pytest.mark.parametrize("kind", list(IndexType))
def test_what_was_saved_comes_back(tmp_path: Path, kind: IndexType) -> None:
    view = make_view(kind)
    arrays = make_arrays(view)
    save(tmp_path / "deep" / "index", make_meta(7), view, arrays)
    saved = load(tmp_path / "deep" / "index", make_expected(kind, digest_spec="sha256-128/int8/bytea/1c2d"))
    assert same(saved, view, arrays)
    assert saved.meta == make_meta(7)
    assert saved.view.generation == 7
    assert [saved.view.live_rows, saved.view.dead_rows, saved.view.delta_rows] == [90, 20, 10]
    assert {name: array.dtype for name, array in saved.arrays.items()} == {name: array.dtype for name, array in arrays.items()}


def test_loaded_index_can_be_changed_and_saved_again(tmp_path: Path) -> None:
    view = make_view()
    save(tmp_path, make_meta(), view, make_arrays(view))
    code = encode(make_vectors(1, seed=5), Metric.COSINE)
    view = load(tmp_path, make_expected()).view.change(np.array([1, 101]), np.array([1]), code)
    save(tmp_path, make_meta(), view, make_arrays(view))
    assert same(load(tmp_path, make_expected()), view, make_arrays(view))


def test_empty_index_comes_back(tmp_path: Path) -> None:
    view = empty_view(make_spec(), 3)
    save(tmp_path, make_meta(3), view, {"ids": np.empty(0, np.int64)})
    saved = load(tmp_path, make_expected())
    assert saved.view.live_rows == 0
    assert saved.arrays["ids"].shape == (0,)


def test_segment_is_written_once_and_old_files_go(tmp_path: Path) -> None:
    view = make_view()
    save(tmp_path, make_meta(), view, make_arrays(view))
    (index,) = tmp_path.glob("segment-*-codes-0.bin")
    before = index.stat()
    later = view.change(np.array([1]), *NO_ROWS)
    save(tmp_path, make_meta(), later, make_arrays(later))
    assert (index.stat().st_ino, index.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(list(tmp_path.glob("ledger-*.bin"))) == 7
    assert len(list(tmp_path.glob("dead-*.bin"))) == 1
    other = make_view(seed=1, generation=2)
    save(tmp_path, make_meta(2), other, make_arrays(other))
    assert not index.exists()
    assert same(load(tmp_path, make_expected()), other, make_arrays(other))


def test_segment_that_was_damaged_on_disk_is_written_anew_with_a_rebuild(tmp_path: Path) -> None:
    """A rebuild of the same rows, under the same generation, must not take over the file that was refused."""
    view = make_view()
    save(tmp_path, make_meta(), view, make_arrays(view))
    damage.flip_bytes(tmp_path)
    assert refusal(tmp_path) == "ChecksumMismatch"
    rebuilt = make_view()
    save(tmp_path, make_meta(), rebuilt, make_arrays(rebuilt))
    assert same(load(tmp_path, make_expected()), rebuilt, make_arrays(rebuilt))


def test_array_that_can_not_be_saved_is_a_defect_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be saved"):
        save(tmp_path, make_meta(), make_view(), {"ids": np.array([object()])})
    with pytest.raises(ValueError, match="no name for an array"):
        save(tmp_path, make_meta(), make_view(), {"../ids": np.arange(3)})


# --- another index ---


def test_nothing_saved_is_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path) == refusal(tmp_path / "no-such-folder") == "Missing"


@pytest.mark.parametrize(
    "expected",
    [
        make_expected(name="other"),
        make_expected(uid="uid-2"),
        make_expected(identity_hash="ffff"),
        make_expected(digest_spec="sha256-128/int8/vector/1c2d"),
        make_expected(spec=replace(make_spec(), dimension=9)),
        make_expected(spec=replace(make_spec(), metric=Metric.L2)),
        make_expected(spec=replace(make_spec(), type=IndexType.FLAT)),
        make_expected(spec=replace(make_spec(), hnsw=Hnsw(m=16))),
        make_expected(spec=replace(make_spec(), hnsw=Hnsw(m=8, ef_construction=200))),
    ],
    ids=["name", "uid", "identity", "digest-spec", "dimension", "metric", "type", "m", "efConstruction"],
)
def test_saved_index_of_another_identity_is_refused(tmp_path: Path, expected: Expected) -> None:
    save(tmp_path, make_meta(), make_view(), {})
    assert refusal(tmp_path, expected) == "WrongIndex"


def test_search_width_comes_from_what_is_expected_now(tmp_path: Path) -> None:
    save(tmp_path, make_meta(), make_view(), {})
    wider = replace(make_spec(), hnsw=Hnsw(m=8, ef_search=500))
    assert load(tmp_path, make_expected(spec=wider)).view.spec.hnsw.ef_search == 500


# --- damage ---


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def zero_page(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(0, len(data), 512)
    return data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]


def swap_pages(data: bytes, rng: random.Random) -> bytes:
    first, second = sorted(rng.sample(range(max(2, len(data) // 64)), 2))
    a, b = data[first * 64 : first * 64 + 64], data[second * 64 : second * 64 + 64]
    return data[: first * 64] + b + data[first * 64 + 64 : second * 64] + a + data[second * 64 + 64 :]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 20))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, View]]:
    """Saved indexes: the one under test, another index's, and a later state of the first."""
    base = tmp_path_factory.mktemp("saved")
    first = make_view()
    views = {"mine": first, "other": make_view(seed=4), "later": first.change(np.array([3, 104]), *NO_ROWS)}
    for name, view in views.items():
        save(base / name, make_meta(name="docs" if name != "other" else "other"), view, make_arrays(view))
    return {name: (base / name, view) for name, view in views.items()}


@pytest.mark.parametrize("harm", [cut, flip, zero_page, swap_pages, append])
def test_damage_anywhere_is_never_loaded(
    tmp_path: Path, originals: dict[str, tuple[Path, View]], harm: Callable[[bytes, random.Random], bytes]
) -> None:
    folder = tmp_path / "index"
    shutil.copytree(originals["mine"][0], folder)
    rng = random.Random(harm.__name__)
    paths = sorted(path for path in folder.iterdir() if path.stat().st_size)
    reasons: dict[str, int] = {}
    for turn in range(60):
        path = paths[turn % len(paths)]
        data = path.read_bytes()
        harmed = harm(data, rng)
        if harmed == data:  # a page that was zero before, two equal pages
            continue
        path.write_bytes(harmed)
        reason = refusal(folder)
        reasons[reason] = reasons.get(reason, 0) + 1
        assert reason == ("ManifestInvalid" if path.name == MANIFEST else "ChecksumMismatch")
        path.write_bytes(data)
    assert sum(reasons.values()) >= 40
    assert set(reasons) == {"ManifestInvalid", "ChecksumMismatch"}
    view = originals["mine"][1]
    assert same(load(folder, make_expected()), view, make_arrays(view))


@pytest.mark.parametrize("donor", ["other", "later"])
def test_files_of_another_index_or_another_time_are_never_loaded(
    tmp_path: Path, originals: dict[str, tuple[Path, View]], donor: str
) -> None:
    mine, theirs = originals["mine"][0], originals[donor][0]

    def kind(path: Path) -> str:
        return "-".join(word for word in path.name.removesuffix(".bin").split("-") if len(word) < 32)

    swapped = 0
    for path in sorted(mine.glob("*.bin")):
        (other,) = [candidate for candidate in theirs.glob("*.bin") if kind(candidate) == kind(path)]
        if other.read_bytes() == path.read_bytes():
            continue
        folder = tmp_path / f"index-{swapped}"
        shutil.copytree(mine, folder)
        shutil.copyfile(other, folder / path.name)
        assert refusal(folder) == "ChecksumMismatch"
        swapped += 1
    assert swapped >= 3


def test_manifest_of_another_index_is_never_taken(tmp_path: Path, originals: dict[str, tuple[Path, View]]) -> None:
    folder = tmp_path / "index"
    shutil.copytree(originals["mine"][0], folder)
    shutil.copyfile(originals["other"][0] / MANIFEST, folder / MANIFEST)
    assert refusal(folder) == "WrongIndex"
    shutil.copyfile(originals["later"][0] / MANIFEST, folder / MANIFEST)
    assert refusal(folder) == "Inconsistent"  # it names files that are not here


def test_any_missing_file_is_refused(tmp_path: Path, originals: dict[str, tuple[Path, View]]) -> None:
    for number, path in enumerate(sorted(originals["mine"][0].glob("*.bin"))):
        folder = tmp_path / str(number)
        shutil.copytree(originals["mine"][0], folder)
        (folder / path.name).unlink()
        assert refusal(folder) == "Inconsistent"


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"null", b"\xff\xfe", b"[" * 100_000, b'{"body":{},"sha256":""}', b" " * (2**20 + 1)],
    ids=["empty", "no-fields", "null", "not-utf8", "deep", "empty-body", "huge"],
)
def test_strange_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    assert refusal(tmp_path) == "ManifestInvalid"


def test_manifest_in_another_spelling_is_refused(tmp_path: Path) -> None:
    save(tmp_path, make_meta(), make_view(), {})
    manifest = tmp_path / MANIFEST
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert refusal(tmp_path) == "ManifestInvalid"


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    assert refusal(tmp_path) == "NotReadable"


# --- wrong although all checksums are right ---


def grow(body: Any) -> None:
    body["segments"][0]["rows"] += 1


def bury_fewer(body: Any) -> None:
    body["segments"][0]["dead_rows"] -= 1


def other_total(body: Any) -> None:
    body["live_rows"] += 1


def other_type(body: Any) -> None:
    body["arrays"]["stamps"]["dtype"] = "<c16"


def other_shape(body: Any) -> None:
    body["arrays"]["digests"]["shape"] = [7, 2]


def negative_shape(body: Any) -> None:
    body["arrays"]["digests"]["shape"] = [-91, -2]


def codes_as_ids(body: Any) -> None:
    body["segments"][0]["ids"] = body["delta"]["ids"]


@pytest.mark.parametrize("change", [grow, bury_fewer, other_total, other_type, other_shape, negative_shape, codes_as_ids])
def test_manifest_whose_parts_do_not_fit_is_refused(tmp_path: Path, change: Callable[[Any], None]) -> None:
    view = make_view()
    save(tmp_path, make_meta(), view, make_arrays(view))
    rewrite_manifest(tmp_path, change)
    assert refusal(tmp_path) == "Inconsistent"


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["arrays"]["ids"]["files"][0].update(name="../../etc/passwd"),
        lambda body: body["arrays"]["ids"]["files"][0].update(bytes=-1),
        lambda body: body.update(format=1),
        lambda body: body.update(extra=1),
        lambda body: body["meta"].update(extra=1),
        lambda body: body["spec"].update(metric="Hamming"),
        lambda body: body["meta"].update(generation="1"),
        lambda body: body.update(id_kind="int4"),
        lambda body: body["segments"][0].update(type="LSH"),
    ],
    ids=["path", "negative-size", "format", "unknown-field", "unknown-meta", "metric", "text-for-number", "id-kind", "segment-type"],
)
def test_forged_manifest_is_refused(tmp_path: Path, change: Callable[[Any], None]) -> None:
    view = make_view()
    save(tmp_path, make_meta(), view, make_arrays(view))
    rewrite_manifest(tmp_path, change)
    assert refusal(tmp_path) == "ManifestInvalid"


# What somebody who can write the volume can also make: files with right checksums that would lead FAISS out of its memory.


def edit_part(folder: Path, name: str, change: Callable[[Array], Array]) -> None:
    """Change one part of the first segment, and make its size, shape and checksum anew."""

    def rewrite(body: Any) -> None:
        entry = body["segments"][0]["arrays"][name]
        array = np.fromfile(folder / entry["files"][0]["name"], entry["dtype"]).reshape(entry["shape"])
        changed = change(array)
        entry["shape"] = list(changed.shape)
        replace_file(folder, entry["files"][0], changed.tobytes())

    rewrite_manifest(folder, rewrite)


def put(place: int, value: int) -> Callable[[Array], Array]:
    def change(array: Array) -> Array:
        array.reshape(-1)[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("kind", "name", "change", "message"),
    [
        (IndexType.HNSW, "neighbors", put(0, 100), "leads to no row"),
        (IndexType.HNSW, "neighbors", put(0, -2), "leads to no row"),
        (IndexType.HNSW, "neighbors", lambda links: links[:-1], "links in the graph"),
        (IndexType.HNSW, "levels", put(3, 0), "on no level"),
        (IndexType.HNSW, "levels", put(3, 99), "on no level"),
        (IndexType.HNSW, "levels", lambda levels: levels + 1, "links in the graph"),
        (IndexType.HNSW, "entry", put(0, 100), "entered at its top"),
        (IndexType.HNSW, "entry", put(0, -1), "entered at its top"),
        (IndexType.HNSW, "codes", lambda codes: codes[:-1], "expected shape"),
        (IndexType.HNSW, "codes", lambda codes: codes[:, :-1], "expected shape"),
        (IndexType.FLAT, "codes", lambda codes: np.concatenate([codes, codes]), "expected shape"),
        (IndexType.IVFFLAT, "sizes", put(0, -1), "don't hold 100 rows"),
        (IndexType.IVFFLAT, "sizes", put(0, 2**62), "don't hold 100 rows"),
        (IndexType.IVFFLAT, "rows", put(0, 100), "in no list"),
        (IndexType.IVFFLAT, "rows", put(0, -1), "in no list"),
        (IndexType.IVFFLAT, "rows", lambda rows: np.repeat(rows[:1], rows.size), "in no list"),
        (IndexType.IVFFLAT, "centroids", lambda table: table[:1], "expected shape"),
    ],
)
def test_forged_parts_with_right_checksums_are_refused(
    tmp_path: Path, kind: IndexType, name: str, change: Callable[[Array], Array], message: str
) -> None:
    save(tmp_path, make_meta(), make_view(kind), {})
    edit_part(tmp_path, name, change)
    with pytest.raises(SnapshotError, match=message) as caught:
        load(tmp_path, make_expected(kind))
    assert caught.value.reason == "Inconsistent"


def test_link_to_a_row_that_is_not_on_that_level_is_refused(tmp_path: Path) -> None:
    """FAISS would take the links of another row, or read behind the last one, for the missing ones."""
    view = make_view()
    save(tmp_path, make_meta(), view, {})
    hnsw = view.segments[0].store.index.hnsw
    levels = faiss.vector_to_array(hnsw.levels)
    node, low = int(np.argmax(levels > 1)), int(np.argmax(levels == 1))
    upper = int(faiss.vector_to_array(hnsw.offsets)[node]) + 16
    edit_part(tmp_path, "neighbors", put(upper, low))
    with pytest.raises(SnapshotError, match="not on its level"):
        load(tmp_path, make_expected())


@pytest.mark.parametrize("name", ["codes", "levels", "neighbors", "entry"])
def test_segment_without_one_of_its_parts_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path, make_meta(), make_view(), {})
    rewrite_manifest(tmp_path, lambda body: body["segments"][0]["arrays"].pop(name))
    assert refusal(tmp_path) == "Inconsistent"


def test_segment_of_another_type_is_refused(tmp_path: Path) -> None:
    save(tmp_path, make_meta(), make_view(), {})
    rewrite_manifest(tmp_path, lambda body: body["segments"][0].update(type="Flat"))
    assert refusal(tmp_path) == "Inconsistent"


def test_dead_mark_that_is_no_mark_is_refused(tmp_path: Path) -> None:
    save(tmp_path, make_meta(), make_view(), {})
    rewrite_manifest(tmp_path, lambda body: replace_file(tmp_path, body["segments"][0]["dead"]["files"][0], bytes([2]) * 100))
    assert refusal(tmp_path) == "Inconsistent"


# --- interrupted ---


class PowerCutError(BaseException):
    """Ends a save where it is, past every handler of errors, as the end of the process would."""


class Stopper:
    """Fails the n-th of certain calls, and lets all others through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
        self.calls = 0
        self.at = at
        self.error = error
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self.wrap(getattr(os, name)))
        monkeypatch.setattr(Path, "unlink", self.wrap(Path.unlink))

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise self.error
            return call(*args, **kwargs)

        return wrapped


def try_save(folder: Path, meta: SavedMeta, view: View, arrays: Mapping[str, Array]) -> str:
    """Save, and tell how that ended."""
    try:
        save(folder, meta, view, arrays)
    except PowerCutError:
        return "PowerCut"
    except SnapshotError as error:
        return error.reason
    return "Saved"


@pytest.mark.parametrize(
    ("error", "expected", "kind"),
    [
        (PowerCutError(), "PowerCut", IndexType.HNSW),
        (PowerCutError(), "PowerCut", IndexType.IVFFLAT),
        (OSError(errno.ENOSPC, "No space left on device"), "NoSpace", IndexType.HNSW),
        (OSError(errno.EIO, "Input/output error"), "NotWritable", IndexType.HNSW),
    ],
)
def test_save_interrupted_at_any_step_leaves_old_or_new(tmp_path: Path, error: BaseException, expected: str, kind: IndexType) -> None:
    old, new = make_view(kind), make_view(kind, seed=8, generation=2)
    old_arrays, new_arrays = make_arrays(old), make_arrays(new)
    save(tmp_path / "origin", make_meta(), old, old_arrays)
    outcomes: list[str] = []
    for step in range(1, 200):
        folder = tmp_path / f"step-{step}"
        shutil.copytree(tmp_path / "origin", folder)
        with pytest.MonkeyPatch.context() as patch:
            stopper = Stopper(patch, step, error)
            ending = try_save(folder, make_meta(2), new, new_arrays)
        if stopper.calls < step:
            break
        assert ending == expected
        discard_partial(folder)
        saved = load(folder, make_expected(kind))
        outcomes.append("new" if saved.meta.generation == 2 else "old")
        assert same(saved, new, new_arrays) if outcomes[-1] == "new" else same(saved, old, old_arrays)
        assert not list(folder.glob(".partial-*"))
        save(folder, make_meta(2), new, new_arrays)  # heals
        assert same(load(folder, make_expected(kind)), new, new_arrays)
        assert len(list(folder.glob("*.bin"))) == 16
    assert outcomes == sorted(outcomes, reverse=True)  # never back to the old one
    assert outcomes.count("old") > 25
    assert outcomes.count("new") > 3


def test_first_save_that_is_interrupted_leaves_nothing_or_all(tmp_path: Path) -> None:
    view = make_view()
    for step in range(1, 100):
        folder = tmp_path / str(step)
        with pytest.MonkeyPatch.context() as patch:
            Stopper(patch, step, PowerCutError())
            ending = try_save(folder, make_meta(), view, {"ids": np.arange(3)})
        if (folder / MANIFEST).exists():
            assert same(load(folder, make_expected()), view, {"ids": np.arange(3)})
        else:
            assert refusal(folder) == "Missing"
        if ending == "Saved":
            break
    assert step > 15


def test_failed_save_gives_its_space_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = make_view()
    save(tmp_path, make_meta(), view, make_arrays(view))
    before = {path.name for path in tmp_path.iterdir()}
    Stopper(monkeypatch, 20, OSError(errno.ENOSPC, "No space left on device"))
    other = make_view(seed=3)
    with pytest.raises(SnapshotError):
        save(tmp_path, make_meta(), other, make_arrays(other))
    assert {path.name for path in tmp_path.iterdir()} == before


def test_full_device_is_no_space_though_the_index_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAISS itself reports nothing when a small index meets a full disk."""
    monkeypatch.setattr(saving, "discard_partial", lambda _folder: None)
    (tmp_path / f"{PARTIAL}{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(SnapshotError) as caught:
        save(tmp_path, make_meta(), make_view(), {})
    assert caught.value.reason == "NoSpace"
    assert "No space left" in caught.value.message


@contextmanager
def limit_space(folder: Path, limit: int) -> Iterator[None]:
    """Let only so many bytes be written: a small disk of its own for root, a limit on file sizes for others."""
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        remount = ["-o", f"remount,size={limit}"] if folder.is_mount() else ["-t", "tmpfs", "-o", f"size={limit}", "tmpfs"]
        subprocess.run(["mount", *remount, str(folder)], check=True)
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit // 4, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "disk"
    if (tmp_path / "disk").is_mount():
        subprocess.run(["umount", str(tmp_path / "disk")], check=True)


def test_disk_that_fills_up_keeps_the_old_index_and_heals(small_disk: Path) -> None:
    view = make_view()
    large = build_view(make_spec(), np.arange(2000, dtype=np.int64), make_vectors(2000), 2)
    with limit_space(small_disk, 128 * 1024):
        save(small_disk, make_meta(), view, make_arrays(view))
        for _ in range(2):
            assert try_save(small_disk, make_meta(2), large, make_arrays(large)) == "NoSpace"
            assert same(load(small_disk, make_expected()), view, make_arrays(view))
    with limit_space(small_disk, 8 * 2**20):
        save(small_disk, make_meta(2), large, make_arrays(large))
    assert same(load(small_disk, make_expected()), large, make_arrays(large))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nothing be written: by mounting it so for root, by its mode for others."""
    if os.geteuid() == 0:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        return
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


def test_volume_that_turns_read_only_keeps_the_old_index_readable_and_heals(small_disk: Path) -> None:
    old, new = make_view(), make_view(seed=8, generation=2)
    with limit_space(small_disk, 8 * 2**20):
        save(small_disk, make_meta(), old, make_arrays(old))
    with read_only(small_disk):
        assert try_save(small_disk, make_meta(2), new, make_arrays(new)) == "NotWritable"
        discard_partial(small_disk)
        assert same(load(small_disk, make_expected()), old, make_arrays(old))
    save(small_disk, make_meta(2), new, make_arrays(new))
    assert same(load(small_disk, make_expected()), new, make_arrays(new))


def test_loading_leaves_alone_what_a_running_writer_is_at(tmp_path: Path) -> None:
    """`check` reads the folder of a server that may be saving."""
    view = make_view()
    save(tmp_path, make_meta(), view, make_arrays(view))
    (tmp_path / f"{PARTIAL}1").write_bytes(b"half")
    load(tmp_path, make_expected())
    read_state(tmp_path)
    assert (tmp_path / f"{PARTIAL}1").read_bytes() == b"half"


def test_file_that_is_cut_short_after_loading_changes_nothing(tmp_path: Path) -> None:
    """Nothing is mapped: a file cut short under a mapping would end the process."""
    view = make_view()
    save(tmp_path, make_meta(), view, make_arrays(view))
    saved = load(tmp_path, make_expected())
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    assert same(saved, view, make_arrays(view))


def test_discarding_partial_files_never_fails(tmp_path: Path) -> None:
    (tmp_path / ".partial-1").write_bytes(b"half")
    (tmp_path / ".partial-2").mkdir()
    discard_partial(tmp_path)
    discard_partial(tmp_path / "no-such-folder")
    assert (tmp_path / ".partial-2").is_dir()


# --- the damage that tests and demo do ---


def test_wrong_index_of_the_damage_script_loads_and_is_wrong_in_both_parts(tmp_path: Path) -> None:
    view = make_view()
    arrays = make_arrays(view)
    save(tmp_path, make_meta(), view, arrays)
    done = damage.damage_both(tmp_path, missing=4, changed=3, ghosts=[0, 777])
    assert (len(done.missing), len(done.changed), done.ghost) == (4, 3, [0, 777])
    saved = load(tmp_path, make_expected())
    ledger = dict(zip(saved.arrays["ids"].tolist(), saved.arrays["codes"].tolist(), strict=True))
    entries = dict(zip(*(part.tolist() for part in saved.view.live_entries()), strict=True))
    assert {row: code for row, code in ledger.items() if row != 5000} == entries  # they agree with each other
    before = dict(zip(arrays["ids"].tolist(), arrays["codes"].tolist(), strict=True))
    assert sorted(before.keys() - ledger.keys()) == done.missing
    assert sorted(ledger.keys() - before.keys()) == done.ghost
    assert [row for row in ledger if row in before and ledger[row] != before[row]] == done.changed
    assert entries[0] == int(code_digests(view.segments[0].codes[:1])[0])  # the dead row's own vector is back
    assert (np.diff(saved.arrays["ids"]) > 0).all()
    for name in ("bounds", "seals"):
        assert (saved.arrays[name] == arrays[name]).all()


def test_index_only_damage_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    view = make_view()
    arrays = make_arrays(view)
    save(tmp_path, make_meta(), view, arrays)
    done = damage.damage_index_only(tmp_path, missing=4, changed=5, duplicates=2, invented=3)
    saved = read_state(tmp_path)
    assert all((saved.arrays[name] == arrays[name]).all() for name in arrays)
    ids, codes = (part.tolist() for part in saved.view.live_entries())
    before = dict(zip(*(part.tolist() for part in view.live_entries()), strict=True))
    after = dict(zip(ids, codes, strict=True))
    assert sorted(before.keys() - after.keys()) == done.missing
    assert sorted(after.keys() - before.keys()) == done.ghost
    assert sorted(row for row in after if row in before and after[row] != before[row]) == done.changed
    assert sorted(row for row in after if ids.count(row) == 2) == done.duplicate


def test_ghosts_must_be_gone(tmp_path: Path) -> None:
    view = make_view()
    save(tmp_path, make_meta(), view, make_arrays(view))
    with pytest.raises(ValueError, match="not indexed"):
        damage.damage_both(tmp_path, ghosts=[1])


@pytest.mark.parametrize(("kind", "reason"), [("flip", "ChecksumMismatch"), ("wrong", ""), ("index-only", "")])
def test_damage_script_runs_alone(tmp_path: Path, kind: str, reason: str) -> None:
    view = make_view()
    save(tmp_path, make_meta(), view, make_arrays(view))
    run = subprocess.run(
        [sys.executable, "-", kind, str(tmp_path)],
        input=Path(damage.__file__).read_text(),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    report = json.loads(run.stdout)
    assert report["kind"] == kind
    if reason:
        assert report["flipped"]
        assert refusal(tmp_path) == reason
    else:
        assert len(report["missing"]) == len(report["changed"]) == 10
        assert not same(load(tmp_path, make_expected()), view, make_arrays(view))
