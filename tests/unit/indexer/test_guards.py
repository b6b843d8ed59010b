"""Which changes may be made without asking. The oracle is plain sets and fractions."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.ledger import make_rows
from vectorindex_indexer.guards import (
    FREE_ROWS,
    Change,
    HeldPlan,
    Limits,
    PlanHead,
    compare_ledgers,
    describe_change,
    freeze,
    is_too_large,
    make_count_plan,
    make_plan,
)
from vectorindex_indexer.keys import IdKind, parse_ids
from vectorindex_indexer.ledger import build_ledger
from vectorindex_indexer.names import ProofReason

HEAD = PlanHead("uid", ProofReason.CHANGE_HELD, "patch", "7/primary/1")
NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)
IDS = st.sets(st.integers(0, 30))


def make_change(removes: int = 0, replaces: int = 0, adds: int = 0) -> Change:
    ids = np.arange(removes + replaces + adds)
    return Change(ids[:removes], ids[removes : removes + replaces], ids[removes + replaces :])


def hold(change: Change, head: PlanHead = HEAD) -> HeldPlan:
    return make_plan(head, change, IdKind.INTEGER, NOW)


@given(IDS, IDS, IDS)
def test_a_change_is_told_by_what_was_and_what_will_be(ids: set[int], shown: set[int], wanted: set[int]) -> None:
    change = describe_change(*(np.array(sorted(part), np.int64) for part in (ids, shown, wanted)))
    assert set(change.removes.tolist()) == (ids & shown) - wanted
    assert set(change.replaces.tolist()) == ids & shown & wanted
    assert set(change.adds.tolist()) == (ids & wanted) - shown


@given(st.dictionaries(st.integers(0, 40), st.integers(0, 2)), st.dictionaries(st.integers(0, 40), st.integers(0, 2)))
def test_two_ledgers_differ_by_their_rows(former: dict[int, int], new: dict[int, int]) -> None:
    def build(rows: dict[int, int]) -> object:
        parts = [make_rows([key], salt=salt) for key, salt in sorted(rows.items())]
        whole = make_rows([])
        for part in parts:
            whole = replace(whole, **{name: np.concatenate([getattr(whole, name), getattr(part, name)]) for name in vars(whole)})
        return build_ledger(whole)

    change = compare_ledgers(build(former), build(new), by_content=True)  # type: ignore[arg-type]

    assert set(change.removes.tolist()) == former.keys() - new.keys()
    assert set(change.adds.tolist()) == new.keys() - former.keys()
    assert set(change.replaces.tolist()) == {key for key in former.keys() & new.keys() if former[key] != new[key]}
    assert compare_ledgers(build(former), build(new), by_content=False).replaces.size == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "rows", "limits", "too_large"),
    [
        (make_change(removes=200), 1000, Limits(0.2, 1000), False),
        (make_change(removes=201), 1000, Limits(0.2, 1000), True),
        (make_change(replaces=201), 1000, Limits(0.2, 1000), True),
        (make_change(removes=101, replaces=100), 1000, Limits(0.2, 1000), True),
        (make_change(adds=5000), 1000, Limits(0.2, 1000), False),
        (make_change(removes=250, adds=250), 1000, Limits(0.2, 1000), True),
        (make_change(removes=1), 800, Limits(0.2, 1000), True),  # 199 left before, little by little
        (make_change(adds=1), 700, Limits(0.2, 1000), False),
        (make_change(removes=FREE_ROWS), 30, Limits(0.2, 30), False),
        (make_change(removes=FREE_ROWS + 1), 30, Limits(0.2, 30), True),
        (make_change(removes=1), 1000, Limits(0.0, 1000), True),
        (make_change(removes=1000), 1000, Limits(1.0, 1000), False),
        (make_change(removes=300), 1000, Limits(0.2, 0), True),  # without a memory, the rows themselves are the measure
    ],
)
def test_a_change_is_too_large_by_what_it_takes_away(change: Change, rows: int, limits: Limits, too_large: bool) -> None:
    assert is_too_large(change, rows, limits) is too_large


def test_a_plan_has_the_same_name_for_everybody_who_would_do_the_same() -> None:
    again = make_plan(HEAD, make_change(removes=3), IdKind.INTEGER, datetime(2027, 1, 1, tzinfo=UTC))
    assert hold(make_change(removes=3)).id == again.id
    assert len(again.id) == 16


@pytest.mark.parametrize(
    "other",
    [
        hold(make_change(removes=4)),
        hold(make_change(removes=3), HEAD._replace(uid="another")),
        hold(make_change(removes=3), HEAD._replace(reason=ProofReason.SOURCE_REGRESSED)),
        hold(make_change(removes=3), HEAD._replace(incarnation="7/primary/2")),
        make_count_plan(HEAD, 3, NOW),
    ],
)
def test_another_plan_has_another_name(other: HeldPlan) -> None:
    assert other.id != hold(make_change(removes=3)).id


def test_a_plan_counts_and_samples_its_rows() -> None:
    ids = parse_ids([f"row-{number:03}" for number in range(30)], IdKind.TEXT)
    plan = make_plan(HEAD, Change(ids[:5], ids[5:7], ids[7:]), IdKind.TEXT, NOW)
    assert (plan.removes, plan.replaces, plan.adds) == (5, 2, 23)
    assert plan.sample_ids == tuple(f"row-{number:03}" for number in range(10))


def test_a_plan_keeps_its_name_while_it_grows_within_the_limit() -> None:
    limits = Limits(0.2, 1000)
    former = hold(make_change(removes=300))
    grown = freeze(hold(make_change(removes=500)), former, limits)
    assert (grown.id, grown.removes, grown.ids.size) == (former.id, 500, 300)
    assert freeze(hold(make_change(removes=501)), former, limits).id != former.id
    assert freeze(hold(make_change(removes=400), HEAD._replace(incarnation="8/primary/1")), former, limits).id != former.id


def test_a_plan_of_counted_rows_is_the_same_however_many_are_gone() -> None:
    assert make_count_plan(HEAD, 3, NOW).id == make_count_plan(HEAD, 4, NOW).id
