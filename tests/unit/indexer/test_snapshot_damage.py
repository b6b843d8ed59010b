"""A thousand damaged saved indexes, of several types: none is ever loaded, unless as exactly what was saved."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.views import MAKES, Make, build_view, make_ids, make_spec, make_vectors
from vectorindex_indexer.config import IndexType, Metric, Quantization
from vectorindex_indexer.errors import SnapshotError
from vectorindex_indexer.index import View, encode
from vectorindex_indexer.keys import IdKind
from vectorindex_indexer.snapshot import MANIFEST, Expected, Saved, SavedAsOf, SavedMeta, load, save

DAMAGED = 1000
ROWS = 340
DIMENSION = 16

Array = NDArray[Any]


class Example(NamedTuple):
    """A saved index, an older state and another generation of it, and another index of the same kind."""

    make: Make
    kind: IdKind
    folder: Path
    older: Path
    rebuilt: Path
    other: Path
    view: View
    arrays: dict[str, Array]
    contents: dict[str, bytes]


def make_meta(make: Make, generation: int = 1, name: str = "docs") -> SavedMeta:
    return SavedMeta(name, f"uid-{make}", "0f1e", "spec", generation, "90:01-02", SavedAsOf("1:2:", "7/primary/1", "a1", ""), "")


def make_view(make: Make, kind: IdKind, seed: int, generation: int = 1) -> View:
    ids, vectors = make_ids(kind, ROWS, seed), make_vectors(ROWS, DIMENSION, seed)
    view = build_view(make_spec(make, DIMENSION, lists=4, probes=3), ids[:300], vectors[:300], generation, kind=kind)
    return view.change(ids[:300:9], ids[300:], encode(vectors[300:], Metric.COSINE))


def make_arrays(view: View) -> dict[str, Array]:
    ids, digests = view.live_entries()
    return {"codes": digests, "stamps": np.arange(ids.size).astype(np.uint64), "bounds": np.arange(3, dtype=np.int64)}


def make_example(base: Path, make: Make, kind: IdKind) -> Example:
    view = make_view(make, kind, 1)
    former = view.change(view.delta.ids[:3], view.delta.ids[:0], view.delta.codes[:0])
    folder, older, rebuilt, other = (base / f"{make}-{name}" for name in ("mine", "older", "rebuilt", "other"))
    save(older, make_meta(make), former, make_arrays(former))
    save(folder, make_meta(make), view, make_arrays(view))
    again = make_view(make, kind, 1, generation=2)
    save(rebuilt, make_meta(make, 2), again, make_arrays(again))
    stranger = make_view(make, kind, 2)
    save(other, make_meta(make, name="other"), stranger, make_arrays(stranger))
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    return Example(make, kind, folder, older, rebuilt, other, view, make_arrays(view), contents)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    kinds = list(IdKind)
    base = tmp_path_factory.mktemp("saved")
    return [make_example(base, make, kinds[number % len(kinds)]) for number, make in enumerate(MAKES)]


# --- kinds of damage: each changes the folder of an example, and says whether it did ---


def choose(example: Example, rng: random.Random) -> Path:
    """Choose a file that is not empty; the manifest more often than its share."""
    names = sorted(name for name, content in example.contents.items() if content)
    return example.folder / (MANIFEST if rng.random() < 0.1 else rng.choice(names))


def rewrite(path: Path, change: Callable[[bytearray], bytearray]) -> bool:
    before = path.read_bytes()
    after = bytes(change(bytearray(before)))
    path.write_bytes(after)
    return after != before


def cut(example: Example, rng: random.Random) -> bool:
    return rewrite(choose(example, rng), lambda data: data[: rng.randrange(len(data))])


def flip(example: Example, rng: random.Random) -> bool:
    def change(data: bytearray) -> bytearray:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return data

    return rewrite(choose(example, rng), change)


def zero(example: Example, rng: random.Random) -> bool:
    def change(data: bytearray) -> bytearray:
        start = rng.randrange(0, len(data), 256)
        data[start : start + 256] = bytes(len(data[start : start + 256]))
        return data

    return rewrite(choose(example, rng), change)


def swap_pages(example: Example, rng: random.Random) -> bool:
    def change(data: bytearray) -> bytearray:
        first, second = (64 * rng.randrange(max(1, len(data) // 64)) for _ in range(2))
        data[first : first + 64], data[second : second + 64] = data[second : second + 64], data[first : first + 64]
        return data

    return rewrite(choose(example, rng), change)


def append(example: Example, rng: random.Random) -> bool:
    return rewrite(choose(example, rng), lambda data: data + rng.randbytes(rng.randrange(1, 40)))


def lose(example: Example, rng: random.Random) -> bool:
    choose(example, rng).unlink()
    return True


def swap_files(example: Example, rng: random.Random) -> bool:
    """Give two files each other's name."""
    first, second = choose(example, rng), choose(example, rng)
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    return a != b


def take_from(donor: Path, example: Example, rng: random.Random) -> bool:
    """Put a valid file of somebody else in the place of the one that holds the same thing, with other content, here."""
    theirs = {describe(path): path.read_bytes() for path in donor.iterdir()}
    here = {name: theirs.get(describe(example.folder / name)) for name in sorted(example.contents)}
    other = [name for name, content in here.items() if content is not None and content != example.contents[name]]
    name = rng.choice(other)
    return rewrite(example.folder / name, lambda _: bytearray(here[name] or b""))


def describe(path: Path) -> str:
    """Return what a file's name says without tokens and checksums."""
    return "-".join(word for word in path.stem.split("-") if len(word) < 32)


def take_from_another_index(example: Example, rng: random.Random) -> bool:
    return take_from(example.other, example, rng)


def take_from_an_older_state(example: Example, rng: random.Random) -> bool:
    return take_from(example.older, example, rng)


def take_from_another_generation(example: Example, rng: random.Random) -> bool:
    return take_from(example.rebuilt, example, rng)


HARMS = (
    *(cut, flip, flip, zero, swap_pages, append, lose, swap_files),
    *(take_from_another_index, take_from_an_older_state, take_from_another_generation),
)


def expect(example: Example) -> Expected:
    return Expected("docs", f"uid-{example.make}", "0f1e", make_spec(example.make, DIMENSION, lists=4, probes=3))


def is_what_was_saved(saved: Saved, example: Example) -> bool:
    queries = make_vectors(4, DIMENSION, seed=9)
    pairs = [
        *zip(saved.view.live_entries(), example.view.live_entries(), strict=True),
        *zip(saved.view.search(queries, 9), example.view.search(queries, 9), strict=True),
        *((saved.arrays[name], array) for name, array in example.arrays.items()),
    ]
    return saved.meta == make_meta(example.make) and all(a.tolist() == b.tolist() for a, b in pairs)


def test_no_damaged_index_is_ever_loaded(examples: list[Example]) -> None:
    rng = random.Random(20261125)
    refused: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    turn = 0
    while refused.total() < DAMAGED:
        example, harm = examples[turn % len(examples)], HARMS[turn % len(HARMS)]
        turn += 1
        if not harm(example, rng):
            continue
        try:
            load(example.folder, expect(example))
        except SnapshotError as error:
            refused[harm.__name__] += 1
            reasons[error.reason] += 1
        else:
            pytest.fail(f"{example.make}: loaded after {harm.__name__} in turn {turn}")
        for name, content in example.contents.items():
            (example.folder / name).write_bytes(content)
    assert len(refused) == len(set(HARMS))
    assert min(refused.values()) > 60, refused
    assert set(reasons) <= {"ManifestInvalid", "ChecksumMismatch", "Inconsistent", "WrongIndex", "Missing"}, reasons
    assert all(is_what_was_saved(load(example.folder, expect(example)), example) for example in examples)


@pytest.mark.parametrize("make", MAKES, ids=str)
@pytest.mark.parametrize("kind", list(IdKind))
def test_every_type_of_index_and_id_comes_back(tmp_path: Path, make: Make, kind: IdKind) -> None:
    example = make_example(tmp_path, make, kind)
    saved = load(example.folder, expect(example))
    assert is_what_was_saved(saved, example)
    assert (saved.view.id_kind, saved.view.fallback, saved.view.dead_rows) == (kind, "", 34)


def test_a_fallback_and_its_sealed_delta_come_back(tmp_path: Path) -> None:
    make = Make(IndexType.IVFFLAT, Quantization.SQ8)
    ids, vectors = make_ids(IdKind.TEXT, 100), make_vectors(100)
    view = build_view(make_spec(make), ids, vectors, kind=IdKind.TEXT)
    save(tmp_path, make_meta(make), view, {})
    saved = load(tmp_path, Expected("docs", f"uid-{make}", "0f1e", make_spec(make))).view
    assert (saved.fallback, saved.segments[0].is_exact) == ("TooFewRowsToTrain", True)
    assert saved.search(vectors, 3)[0].tolist() == view.search(vectors, 3)[0].tolist()


def test_truncation_at_any_byte_is_refused(examples: list[Example]) -> None:
    """Each length of the smallest data file and of the manifest."""
    example = examples[0]
    names = sorted(
        (name for name, content in example.contents.items() if content and name != MANIFEST), key=lambda n: len(example.contents[n])
    )
    for name in (names[0], MANIFEST):
        content = example.contents[name]
        for length in range(len(content)):
            (example.folder / name).write_bytes(content[:length])
            with pytest.raises(SnapshotError):
                load(example.folder, expect(example))
        (example.folder / name).write_bytes(content)


def test_large_arrays_are_cut_into_files_and_each_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectorindex_indexer.snapshot.files.PART_BYTES", 1000)
    for make in MAKES:
        example = make_example(tmp_path, make, IdKind.INTEGER)
        parts = sorted(example.folder.glob("segment-*-codes-*.bin"))
        assert len(parts) == -(-300 * DIMENSION * (1 if make.quantization is Quantization.SQ8 else 4) // 1000)
        assert is_what_was_saved(load(example.folder, expect(example)), example)
        parts[1].write_bytes(parts[0].read_bytes())
        with pytest.raises(SnapshotError, match="not what was saved"):
            load(example.folder, expect(example))
        shutil.rmtree(example.folder)
