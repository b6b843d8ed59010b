"""Damages a saved index on purpose, as disks, defects and old backups would. For tests, and as a script inside a container of the indexer:

    python - flip FOLDER < damage.py                   bytes of a segment's codes turned over: checksums tell
    python - wrong FOLDER --ghost 7 8 < damage.py      rows lost, others back, vectors changed, in ledger and index; checksums right
    python - index-only FOLDER < damage.py             the same, and ids twice, in the index alone; checksums right

Prints what it did as JSON. Seals are left as they were. The indexer must not save while this runs.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectorindex_indexer.config import Metric
from vectorindex_indexer.index import View, code_digests, encode
from vectorindex_indexer.index.parts import Segment, make_segment
from vectorindex_indexer.snapshot import MANIFEST, read_state, save

Array = NDArray[Any]


@dataclass(frozen=True)
class Damage:
    """What was done, by kind of drift, as ids; for flipped bytes the file and the positions."""

    missing: list[int]
    ghost: list[int]
    changed: list[int]
    duplicate: list[int]
    file: str = ""
    flipped: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Which rows are to be damaged. Rows that stay as they are appear nowhere."""

    missing: Array
    ghost: Array
    changed: Array
    duplicate: Array


def flip_bytes(folder: Path, count: int = 3, seed: int = 0, file: str | None = None) -> Damage:
    """Turn over bytes of one file (a segment's codes when none is named; else the largest), keeping its length."""
    names = sorted(path.name for path in folder.glob("*.bin"))
    candidates = [name for name in names if "-codes-" in name and name.startswith("segment-")] or names
    name = file or max(candidates, key=lambda name: (folder / name).stat().st_size)
    data = bytearray((folder / name).read_bytes())
    positions = sorted({int(place) for place in np.random.default_rng(seed).integers(0, len(data), count)})
    for place in positions:
        data[place] ^= 0xFF
    (folder / name).write_bytes(data)
    return Damage([], [], [], [], file=name, flipped=tuple(positions))


def damage_both(
    folder: Path, *, missing: int = 20, changed: int = 10, ghosts: Sequence[int] | None = None, invented: int = 5, seed: int = 0
) -> Damage:
    """Save a wrong index: ledger and view agree with each other and with all checksums, but not with what was true.

    `ghosts` are the ids to bring back; without them, `invented` ids are made up. Raises ValueError for a ghost that is not gone.
    """
    saved = read_state(folder)
    rng = np.random.default_rng(seed)
    plan = make_plan(saved.arrays, rng, (missing, changed, 0), ghosts, invented)
    vectors = make_vectors(saved.view, plan, rng)
    view = change_view(saved.view, plan, vectors)
    arrays = change_ledger(saved.arrays, plan, vectors)
    save(folder, saved.meta, view, arrays)
    return describe(plan)


def damage_index_only(
    folder: Path,
    *,
    missing: int = 10,
    changed: int = 10,
    duplicates: int = 3,
    ghosts: Sequence[int] | None = None,
    invented: int = 5,
    seed: int = 0,
) -> Damage:
    """Save an index that its own ledger contradicts. Changed vectors are changed in FAISS' own memory, where no mark tells of them."""
    saved = read_state(folder)
    rng = np.random.default_rng(seed)
    plan = make_plan(saved.arrays, rng, (missing, changed, duplicates), ghosts, invented)
    vectors = make_vectors(saved.view, plan, rng)
    view = overwrite_codes(saved.view, plan.changed, vectors)
    view = change_view(view, replace(plan, changed=np.empty(0, np.int64)), vectors)
    save(folder, saved.meta, view, saved.arrays)
    return describe(plan)


def make_plan(
    arrays: Mapping[str, Array], rng: np.random.Generator, counts: tuple[int, int, int], ghosts: Sequence[int] | None, invented: int
) -> Plan:
    """Choose rows that are in the index (missing, changed, duplicate) and ids that are not (ghosts)."""
    known = arrays["ids"]
    chosen = rng.permutation(known[arrays["quarantine"] == 0])
    if chosen.size < sum(counts):
        raise ValueError(f"expected at least {sum(counts)} rows in the index, got {chosen.size}")
    missing, changed, duplicate = np.split(chosen[: sum(counts)], np.cumsum(counts)[:2])
    if ghosts is None:
        start = int(known.max(initial=0)) + 1
        ghosts = range(start, start + invented)
    ghost = np.array(ghosts, np.int64)
    if np.isin(ghost, known).any():
        raise ValueError(f"expected ids that are not indexed, got {ghost[np.isin(ghost, known)].tolist()}")
    return Plan(np.sort(missing), ghost, np.sort(changed), np.sort(duplicate))


def make_vectors(view: View, plan: Plan, rng: np.random.Generator) -> dict[int, Array]:
    """Return codes: of ghosts the old one, where the index still holds it, of changed rows a new one, of duplicates their own."""
    wanted = np.concatenate([plan.ghost, plan.duplicate])
    vectors = find_codes(view, wanted)
    for row in [*plan.changed.tolist(), *(int(ghost) for ghost in plan.ghost if int(ghost) not in vectors)]:
        vectors[row] = encode(rng.standard_normal((1, view.spec.dimension)).astype(np.float32), Metric.COSINE)[0]
    return vectors


def find_codes(view: View, ids: Array) -> dict[int, Array]:
    """Return the newest code the view holds for each of these ids, dead or live; ids it never had are left out."""
    found: dict[int, Array] = {}
    for part in view.parts:
        places = np.flatnonzero(np.isin(part.ids, ids))
        codes = part.decode(places).astype(np.float32)
        found |= {int(part.ids[place]): code for place, code in zip(places, codes, strict=True)}
    return found


def change_view(view: View, plan: Plan, vectors: Mapping[int, Array]) -> View:
    """Return the view with the planned damage in it."""
    added = np.concatenate([plan.ghost, plan.changed, plan.duplicate])
    codes = np.array([vectors[int(row)] for row in added], np.float32).reshape(-1, view.spec.dimension)
    return view.change(np.concatenate([plan.missing, plan.changed]), added, codes)


def overwrite_codes(view: View, ids: Array, vectors: Mapping[int, Array]) -> View:
    """Return the view with other codes under these ids, written into the memory of FAISS, or of the delta."""
    segments = []
    for segment in view.segments:
        for row in segment.find(np.unique(ids)):
            find_bytes(segment, int(row))[:] = segment.store.codec.encode(vectors[int(segment.ids[row])][None])[0]
        segments.append(make_segment(segment.store, segment.ids, segment.dead))  # a token of its own: it has other content now
    for place in np.flatnonzero(np.isin(view.delta.ids, ids)):
        view.delta.codes[place] = vectors[int(view.delta.ids[place])]
    return replace(view, segments=tuple(segments))


def find_bytes(segment: Segment, row: int) -> Array:
    """Return what FAISS stores of one row, as a window into its memory."""
    parts = segment.store.take_apart()
    if "rows" not in parts:
        window: Array = parts["codes"][0][row]
        return window
    lists = zip(parts["rows"], parts["codes"], strict=True)
    return next(codes[int(np.argmax(rows == row))] for rows, codes in lists if row in rows)


def change_ledger(arrays: Mapping[str, Array], plan: Plan, vectors: Mapping[int, Array]) -> dict[str, Array]:
    """Return the ledger's arrays as if the damaged index were the truth; boundaries and seals stay."""
    rows = {name: arrays[name] for name in ("ids", "digests", "stamps", "codes", "quarantine")}
    kept = ~np.isin(rows["ids"], np.concatenate([plan.missing, plan.changed]))
    stamps = dict(zip(rows["ids"].tolist(), rows["stamps"].tolist(), strict=True))
    added = np.concatenate([plan.ghost, plan.changed])
    codes = np.array([vectors[int(row)] for row in added], np.float32)
    new = {
        "ids": added,
        "digests": np.array([make_digest(int(row), code) for row, code in zip(added, codes, strict=True)], np.uint64).reshape(-1, 2),
        "stamps": np.array([stamps.get(int(row), int(row) & 0xFFFF) for row in added], np.uint64),
        "codes": code_digests(codes) if added.size else np.empty(0, np.uint64),
        "quarantine": np.zeros(added.size, np.uint8),
    }
    joined = {name: np.concatenate([rows[name][kept], new[name]]) for name in rows}
    order = np.argsort(joined["ids"], kind="stable")
    return {**arrays, **{name: array[order] for name, array in joined.items()}}


def make_digest(row: int, code: Array) -> tuple[int, int]:
    """Return a row digest as it would be if the code were the vector in Postgres."""
    digest = hashlib.sha256(row.to_bytes(8, "big", signed=True) + code.astype("<f4").tobytes()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def describe(plan: Plan) -> Damage:
    """Return the plan as plain numbers."""
    return Damage(plan.missing.tolist(), plan.ghost.tolist(), plan.changed.tolist(), plan.duplicate.tolist())


def main(arguments: Sequence[str]) -> int:
    """Run one kind of damage from the command line."""
    parser = argparse.ArgumentParser(prog="damage.py", description="damage a saved index on purpose")
    parser.add_argument("kind", choices=("flip", "wrong", "index-only"))
    parser.add_argument("folder", type=Path, help="the folder that holds manifest.json")
    parser.add_argument("--ghost", type=int, nargs="+", help="ids to bring back (default: made-up ones)")
    parser.add_argument("--missing", type=int, default=10, help="how many rows to lose")
    parser.add_argument("--changed", type=int, default=10, help="how many vectors to change")
    parser.add_argument("--duplicates", type=int, default=3, help="how many ids to have twice (index-only)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if not (given.folder / MANIFEST).is_file():
        parser.error(f"{given.folder} holds no saved index")
    counts = {"missing": given.missing, "changed": given.changed, "ghosts": given.ghost, "seed": given.seed}
    if given.kind == "flip":
        damage = flip_bytes(given.folder, seed=given.seed)
    elif given.kind == "wrong":
        damage = damage_both(given.folder, **counts)
    else:
        damage = damage_index_only(given.folder, duplicates=given.duplicates, **counts)
    sys.stdout.write(json.dumps({"kind": given.kind, **asdict(damage)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
