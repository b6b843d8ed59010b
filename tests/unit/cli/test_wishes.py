"""What is written for what a person asks."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.cli.documents import load, make
from vectorindex_cli import wishes
from vectorindex_cli.errors import UsageError

NOW = datetime(2026, 11, 25, 9, 0, 30, tzinfo=UTC)
ONE, TWO, THREE = "1" * 16, "2" * 16, "3" * 16


def test_a_wish_is_later_than_the_one_before_so_that_it_is_answered_too() -> None:
    assert wishes.choose_moment(None, NOW) == "2026-11-25T09:00:30Z"
    assert wishes.choose_moment("2026-11-25T09:00:30Z", NOW) == "2026-11-25T09:00:31Z"
    assert wishes.choose_moment("2026-11-25T08:00:00Z", NOW) == "2026-11-25T09:00:30Z"


@pytest.mark.parametrize("earlier", ["tomorrow", (NOW + timedelta(days=365)).isoformat()])
def test_a_wish_before_that_is_wrong_does_not_spoil_this_one(earlier: str) -> None:
    assert wishes.choose_moment(earlier, NOW) == "2026-11-25T09:00:30Z"


@pytest.mark.parametrize(
    ("echo", "answered"),
    [(None, False), ("", False), ("2026-11-25T09:00:29Z", False), ("2026-11-25T09:00:30Z", True), ("2026-11-25T10:00:31+01:00", True)],
)
def test_a_wish_is_answered_by_its_echo_or_a_later_one(echo: str | None, answered: bool) -> None:
    assert wishes.is_answered(echo, "2026-11-25T09:00:30Z") is answered


def test_an_approval_keeps_what_is_approved_and_not_carried_out() -> None:
    index = make(held=(ONE, TWO), approved=(TWO,), used=(THREE,), annotation=f"{TWO}, {THREE}, nonsense, {'4' * 16}")
    approval = wishes.plan_approval(index, [ONE])
    assert approval.annotation == f"{TWO},{'4' * 16},{ONE}"
    assert (approval.changes, approval.used_up) == (True, ())


def test_an_approval_of_what_is_approved_changes_nothing() -> None:
    approval = wishes.plan_approval(make(held=(ONE,), approved=(ONE,), annotation=ONE), [ONE, ONE])
    assert (approval.changes, len(approval.plans)) == (False, 1)


def test_a_plan_that_was_used_up_is_first_taken_out_of_the_annotation() -> None:
    approval = wishes.plan_approval(make(held=(ONE, TWO), approved=(TWO,), used=(ONE,), annotation=f"{ONE},{TWO}"), [ONE])
    assert (approval.used_up, approval.without, approval.annotation) == ((ONE,), TWO, f"{TWO},{ONE}")
    assert wishes.plan_approval(make(held=(ONE,), used=(ONE,), annotation=ONE), [ONE]).without is None


@pytest.mark.parametrize(("held", "says"), [((), "no replica holds a plan"), ((ONE,), f"held are: {ONE}")])
def test_an_unknown_plan_is_refused_with_what_is_held(held: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refusal:
        wishes.plan_approval(make(held=held), [*held, TWO])
    assert f"search/docs has no held plan {TWO};" in str(refusal.value)


def test_no_more_ids_are_written_than_are_read_and_those_nobody_holds_go_first() -> None:
    old = [f"{number:016x}" for number in range(1, 21)]
    approval = wishes.plan_approval(
        make(held=("a" * 16, "b" * 16), approved=("b" * 16,), annotation=",".join([*old, "b" * 16])), ["a" * 16]
    )
    assert approval.annotation == f"{'b' * 16},{'a' * 16}"


def test_more_approvals_than_are_read_are_refused() -> None:
    many = [f"{number:016x}" for number in range(1, 22)]
    with pytest.raises(UsageError, match="21 approved plans, and 20 at most"):
        wishes.plan_approval(make(held=tuple(many)), many)


def test_the_held_document_is_approved_as_it_is() -> None:
    index = load("held")
    assert wishes.plan_approval(index, [index.status.held_plans[0].id]).annotation == index.status.held_plans[0].id
