"""Which buckets have their rows hashed now."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.ledger import make_rows
from vectorindex_indexer.belief import Terms
from vectorindex_indexer.cycle import find_due
from vectorindex_indexer.ledger import BUCKET_ROWS, NEVER, Ledger, build_ledger

BUCKETS = 20
EVERYTHING = set(range(BUCKETS))


def make_ledger(*compared: float) -> Ledger:
    """Return a ledger of 20 buckets; `compared` is when they were, over and over."""
    ledger = build_ledger(make_rows(range(BUCKETS * BUCKET_ROWS)))
    return replace(ledger, compared=np.resize(np.array(compared), BUCKETS))


def make_terms(now: float) -> Terms:
    """Return terms by which a tenth of the buckets is due at each check."""
    return Terms(now=now, period=10.0, content_sweep=100.0, whole=False, apply=True)


def due_at(now: float, ledger: Ledger, *, has_stored: bool = False) -> set[int]:
    return find_due(ledger, make_terms(now), range(BUCKETS), has_stored)


def test_share_that_was_not_compared_for_longest_is_due() -> None:
    ledger = make_ledger(*np.arange(1000.0, 1000.0 + BUCKETS))
    assert due_at(1020.0, ledger) == {0, 1}


@pytest.mark.parametrize("has_stored", [False, True])
def test_whatever_would_be_late_at_the_next_check_is_due(has_stored: bool) -> None:
    assert due_at(1100.0, make_ledger(1000.0), has_stored=has_stored) == EVERYTHING


def test_after_a_start_everything_is_due_unless_digest_columns_speak_for_it() -> None:
    assert due_at(1000.0, make_ledger(NEVER)) == EVERYTHING
    assert len(due_at(1000.0, make_ledger(NEVER), has_stored=True)) == 2


def test_with_digest_columns_everything_is_hashed_within_a_sweep_after_a_start() -> None:
    ledger, hashed = make_ledger(NEVER), set()
    for now in np.arange(1000.0, 1100.0, 10.0):
        due = due_at(now, ledger, has_stored=True)
        hashed |= due
        ledger = ledger.replace({}, compared=dict.fromkeys(due, now))
    assert hashed == EVERYTHING


def test_each_start_begins_at_another_place() -> None:
    firsts = [due_at(now, make_ledger(NEVER), has_stored=True) for now in (1000.0, 1050.0, 1100.0)]
    assert len(set.union(*firsts)) == 6
