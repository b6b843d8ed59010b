"""How far a rebuild is shown to be."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from tests.unit.cli.documents import load
from vectorindex_cli.progress import RebuildWatch
from vectorindex_cli.resource import Member, Progress, VectorIndex

STARTED = load("healthy")
FIRST, SECOND = (replace(member, generation=3, progress=None) for member in STARTED.status.members)
NEWER = replace(FIRST, generation=4)


def with_members(*members: Member) -> VectorIndex:
    return replace(STARTED, status=replace(STARTED.status, members=list(members)))


def building(done: int, expected: int = 9500, generation: int = 4) -> Member:
    return replace(SECOND, progress=Progress(generation, done, expected))


def describe(*looks: tuple[float, Sequence[Member]], bar: bool = False) -> str:
    """Return what the last of several looks shows."""
    watch = RebuildWatch(with_members(FIRST, SECOND))
    texts = [watch.describe(with_members(*members), at, bar=bar).text for at, members in looks]
    return texts[-1]


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (SECOND, f"docs-index-1: Serving, generation 3, {SECOND.rows} rows"),
        (building(0, 0), "docs-index-1: has to wait, or counts rows"),
        (building(4000), "docs-index-1: 4000 of 9500 rows"),
        (building(9500), "docs-index-1: 9500 of 9500 rows, being proven"),
    ],
)
def test_each_replica_says_where_its_rebuild_stands(member: Member, says: str) -> None:
    assert describe((0, (NEWER, member))) == f"1 of 2 replicas rebuilt ({says})"


@pytest.mark.parametrize(
    ("members", "bar"),
    [
        ((FIRST, SECOND), f"[{'.' * 20}]   0%  0 of 2"),
        ((NEWER, building(0, 0)), f"[{'#' * 10}{'.' * 10}]  50%  1 of 2"),
        ((NEWER, building(4750)), f"[{'#' * 15}{'.' * 5}]  75%  1 of 2"),
        ((NEWER, building(9500)), f"[{'#' * 19}.]  99%  1 of 2"),  # not before it is proven
        ((NEWER, replace(SECOND, pod_uid="another", generation=1)), f"[{'#' * 20}] 100%  2 of 2"),  # a new pod has built its own
    ],
)
def test_the_bar_counts_rows_of_all_replicas(members: Sequence[Member], bar: str) -> None:
    assert describe((0, members), bar=True).startswith(bar)


def test_the_rest_is_estimated_once_enough_was_seen_and_only_of_this_attempt() -> None:
    begun = (0.0, (NEWER, building(500)))
    assert "the rest" not in describe(begun, (4, (NEWER, building(5000))))  # too short a time
    assert "the rest" not in describe(begun, (60, (NEWER, building(600))))  # too few rows
    assert describe(begun, (10, (NEWER, building(5000)))).endswith("5000 of 9500 rows, the rest in about 10s)")
    assert describe(begun, (100, (NEWER, building(2000)))).endswith("2000 of 9500 rows, the rest in about 8m)")
    assert "the rest" not in describe(begun, (10, (NEWER, building(5000))), (20, (NEWER, building(6000, generation=5))))


def test_figures_are_no_new_step() -> None:
    watch = RebuildWatch(with_members(FIRST, SECOND))
    steps = [watch.describe(with_members(*members), 0, bar=False).step for members in ((FIRST, building(1)), (FIRST, building(2)))]
    assert steps == ["0 of 2 replicas rebuilt"] * 2
