"""Faults of an index, planted into a proven belief by what can have led to them; what must change upstream first, is followed first."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.support.bench import Bench, in_order
from tests.support.faults import (
    bring_back,
    change_digest,
    change_view,
    flip_bit,
    lose_from_ledger,
    mark_dead,
    mark_living,
)
from tests.support.tables import Key, Rule
from vectorindex_indexer import snapshot
from vectorindex_indexer.belief import Belief
from vectorindex_indexer.ledger import parse_ledger


@dataclass(frozen=True)
class Planted:
    """A belief that is wrong, and what a check must say of it."""

    belief: Belief
    missing: tuple[Key, ...] = ()
    ghost: tuple[Key, ...] = ()
    changed: tuple[Key, ...] = ()
    duplicate: tuple[Key, ...] = ()
    followed: tuple[int, int, int] = (0, 0, 0)  # rows inserted, deleted and updated: the source is further on, which is no drift

    @property
    def drift(self) -> dict[str, list[Key]]:
        """The drift by kind, only kinds that occur."""
        kinds = {"missing": self.missing, "ghost": self.ghost, "changed": self.changed, "duplicate": self.duplicate}
        return {kind: in_order(keys) for kind, keys in kinds.items() if keys}


def lost_from_the_index(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    return Planted(change_view(bench.belief, [bench.value(key)], {}), missing=(key,))


def lost_from_ledger_and_index(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    return Planted(lose_from_ledger(bench.belief, bench.value(key)), missing=(key,))


def lost_by_a_dead_mark(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    return Planted(mark_dead(bench.belief, bench.value(key)), missing=(key,))


def ghost_by_tombstone(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    bench.table.tombstone(key)
    return Planted(miss(bench, deleted=1), ghost=(key,))


def ghost_by_hard_delete(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    bench.table.delete(key)
    return Planted(miss(bench, deleted=1), ghost=(key,))


def ghost_by_lost_metadata(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    bench.table.delete_metadata(key)
    return Planted(miss(bench, deleted=1), ghost=(key,))


def ghost_by_model_move(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    bench.table.move(key)
    return Planted(miss(bench, deleted=1), ghost=(key,))


def ghost_in_ledger_and_index(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    vector = bench.vector(key)
    kill(bench, key)
    bench.follow(deleted=1)
    return Planted(bring_back(bench.belief, bench.value(key), vector), ghost=(key,))


def ghost_by_a_lost_dead_mark(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    kill(bench, key)
    bench.follow(deleted=1)
    return Planted(mark_living(bench.belief, bench.value(key)), ghost=(key,))


def changed_upstream_and_missed(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    bench.table.update_vector(key)
    return Planted(miss(bench, updated=1), changed=(key,))


def changed_in_the_ledger(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    return Planted(change_digest(bench.belief, bench.value(key)), changed=(key,))


def changed_in_the_ledger_under_a_new_seal(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    return Planted(change_digest(bench.belief, bench.value(key), sealed=True), changed=(key,))


def changed_by_a_flipped_bit(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    return Planted(flip_bit(bench.belief, bench.value(key)), changed=(key,))


def changed_by_a_flipped_bit_of_the_delta(bench: Bench, _: Path) -> Planted:
    (key,) = bench.table.insert()
    bench.touched.add(key)
    bench.follow(inserted=1)
    return Planted(flip_bit(bench.belief, bench.value(key)), changed=(key,))


def swapped_in_the_index(bench: Bench, _: Path) -> Planted:
    one, other = bench.take(2)
    first, second = bench.value(one), bench.value(other)
    belief = change_view(bench.belief, [first, second], {first: bench.vector(other), second: bench.vector(one)})
    return Planted(belief, changed=(one, other))


def swapped_upstream_and_missed(bench: Bench, _: Path) -> Planted:
    one, other = bench.take(2)
    bench.table.swap(one, other)
    return Planted(miss(bench, updated=2), changed=(one, other))


def duplicate_in_the_index(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    return Planted(change_view(bench.belief, [], {bench.value(key): bench.vector(key)}), duplicate=(key,))


def duplicate_by_a_lost_dead_mark(bench: Bench, _: Path) -> Planted:
    (key,) = bench.take()
    bench.table.update_vector(key)
    bench.follow(updated=1)
    return Planted(mark_living(bench.belief, bench.value(key)), duplicate=(key,))


def stale_saved_index(bench: Bench, folder: Path) -> Planted:
    """An index of an older state is loaded: it is behind the source, which is no drift, and follows it."""
    save(bench.belief, folder)
    change_much(bench)
    bench.follow(*MUCH)
    return Planted(load(folder, bench.belief), followed=MUCH)


def stale_index_under_a_newer_ledger(bench: Bench, folder: Path) -> Planted:
    save(bench.belief, folder)
    inserted, dead, updated = change_much(bench)
    bench.follow(*MUCH)
    return Planted(replace(bench.belief, view=load(folder, bench.belief).view), missing=inserted, ghost=dead, changed=updated)


Plant = Callable[[Bench, Path], Planted]

FAULTS: Final[tuple[Plant, ...]] = (
    lost_from_the_index,
    lost_from_ledger_and_index,
    lost_by_a_dead_mark,
    ghost_by_tombstone,
    ghost_by_hard_delete,
    ghost_by_lost_metadata,
    ghost_by_model_move,
    ghost_in_ledger_and_index,
    ghost_by_a_lost_dead_mark,
    changed_upstream_and_missed,
    changed_in_the_ledger,
    changed_in_the_ledger_under_a_new_seal,
    changed_by_a_flipped_bit,
    changed_by_a_flipped_bit_of_the_delta,
    swapped_in_the_index,
    swapped_upstream_and_missed,
    duplicate_in_the_index,
    duplicate_by_a_lost_dead_mark,
    stale_saved_index,
    stale_index_under_a_newer_ledger,
)
MUCH: Final = (2, 2, 1)  # what `change_much` does


def miss(bench: Bench, *, deleted: int = 0, updated: int = 0) -> Belief:
    """Let the ledger follow a change upstream that the index misses."""
    before = bench.belief.view
    bench.follow(deleted=deleted, updated=updated)
    return replace(bench.belief, view=before)


def kill(bench: Bench, key: Key) -> None:
    """Let a row die in the way of its table."""
    if bench.table.form.rule is Rule.NONE:
        bench.table.delete(key)
    else:
        bench.table.tombstone(key)


def change_much(bench: Bench) -> tuple[tuple[Key, ...], tuple[Key, ...], tuple[Key, ...]]:
    """Change a table in every way. Returns which rows came, went and changed."""
    gone, moved, changed = bench.take(3)
    inserted = tuple(bench.table.insert(2))
    bench.touched.update(inserted)
    kill(bench, gone)
    bench.table.move(moved)
    bench.table.update_vector(changed)
    return inserted, (gone, moved), (changed,)


def save(belief: Belief, folder: Path) -> None:
    """Save a belief as a replica does."""
    as_of = belief.as_of
    saved = snapshot.SavedAsOf(as_of.snapshot, as_of.incarnation, as_of.fingerprint, as_of.at.isoformat())
    meta = snapshot.SavedMeta("docs", "local-docs", "0" * 64, belief.digest_spec, 1, str(belief.ledger.root), saved, saved.at)
    snapshot.save(folder, meta, belief.view, belief.ledger.to_arrays())


def load(folder: Path, latest: Belief) -> Belief:
    """Load the saved belief; where it was read is taken from a later one, whose server is the same."""
    saved = snapshot.read_state(folder)
    ledger = parse_ledger(saved.arrays, saved.view.id_kind)
    as_of = replace(latest.as_of, snapshot=saved.meta.as_of.snapshot)
    return Belief(ledger, saved.view, as_of, saved.meta.digest_spec, ledger.root)
