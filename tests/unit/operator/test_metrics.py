"""Series of the operator: so many for each VectorIndex, none for one that is gone, and no label that anybody could fill at will."""

from collections import Counter
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from tests.support.vector_index import NOW, make_index, make_observed, plan_of
from vectorindex_operator import metrics, status
from vectorindex_operator.api import Status
from vectorindex_operator.names import ConditionStatus, ConditionType, DriftKind, Key

OF_ONE: Final = len(ConditionType) * len(ConditionStatus) + len(("true", "false")) + len(DriftKind) + len(("rows", "held", "disagree"))
"""Series of one VectorIndex whose replicas hold as many rows."""
CLOSED: Final = {"type", "status", "serving", "kind", "result", "method", "code", "loop", "outcome"}
"""Labels that have as many values as the code knows; all others name the resource."""


def count_series() -> Counter[Key | None]:
    """Return the number of series by VectorIndex; None for all others."""
    found: Counter[Key | None] = Counter()
    for family in REGISTRY.collect():
        for sample in family.samples:
            namespace, name = sample.labels.get("namespace"), sample.labels.get("name")
            found[Key(namespace, name) if namespace and name else None] += 1
    return found


def statuses() -> list[Status]:
    """Return how different one VectorIndex may look in the course of time."""
    seen = (make_observed(), make_observed(pods=1), make_observed(make_index(suspend=True)))
    return [status.render_status(one, plan_of(one), "", NOW) for one in seen]


def test_two_hundred_indexes_have_two_hundred_times_the_series_of_one_and_leave_none() -> None:
    shown, before = statuses(), count_series()
    keys = [Key(f"team-{number % 7}", f"docs-{number}") for number in range(200)]
    for turn in range(3):  # seen again and again, they get no more
        for number, key in enumerate(keys):
            metrics.show_status(key, shown[(number + turn) % len(shown)])
        now = count_series()
        assert now[None] == before[None]
        assert {now[key] for key in keys} == {OF_ONE}
        assert len(now) == len(before) + len(keys)
    for key in keys:
        metrics.forget(key)
    assert count_series() == before


def test_labels_are_names_of_resources_and_closed_sets() -> None:
    declared = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    assert declared
    assert {label for one in declared for label in one._labelnames} <= CLOSED | {"namespace", "name"}
