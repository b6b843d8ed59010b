"""Lists that fail, in part or for one namespace, cost no look at what could be listed."""

import asyncio
from typing import cast

import pytest

from tests.support.vector_index import make_manifest
from vectorindex_operator import names
from vectorindex_operator.api import Json
from vectorindex_operator.cluster import Cluster
from vectorindex_operator.errors import ClusterError, RejectedError
from vectorindex_operator.names import Key
from vectorindex_operator.resync import Resync
from vectorindex_operator.store import Store


class Lists:
    """An API server with one index `docs` in each namespace, that refuses what it is told to refuse."""

    def __init__(self, **errors: ClusterError) -> None:
        self.errors = errors  # by kind or namespace

    async def read_watched(self, kind: str, namespace: str) -> tuple[list[Json], int]:
        await asyncio.sleep(0)
        for name in (kind, namespace):
            if name in self.errors:
                raise self.errors[name]
        manifest = make_manifest(namespace=namespace)
        manifest["metadata"]["resourceVersion"] = "7"
        return ([manifest] if kind == names.KIND else []), 9


def make_resync(lists: Lists, *namespaces: str) -> tuple[Resync, list[Key]]:
    looked: list[Key] = []
    return Resync(cast(Cluster, lists), Store(), looked.append, namespaces), looked


def test_namespace_that_may_not_be_read_hinders_no_other() -> None:
    resync, looked = make_resync(Lists(gone=RejectedError("forbidden", 403)), "gone", "search")
    asyncio.run(resync.run())
    assert looked == [Key("search", "docs")]


def test_nothing_is_listed_where_no_namespace_may_be_read() -> None:
    resync, looked = make_resync(Lists(gone=RejectedError("forbidden", 403)), "gone")
    with pytest.raises(RejectedError):
        asyncio.run(resync.run())
    assert not looked


def test_what_was_listed_before_a_list_failed_is_looked_at_once_all_are_there() -> None:
    lists = Lists(Pod=ClusterError("no answer"))
    resync, looked = make_resync(lists, "search")
    with pytest.raises(ClusterError):
        asyncio.run(resync.run())
    assert not looked
    del lists.errors["Pod"]
    asyncio.run(resync.run())
    assert looked == [Key("search", "docs")]


def test_two_that_are_asked_for_at_the_same_time_run_one_after_the_other() -> None:
    resync, looked = make_resync(Lists(), "search")

    async def run_twice() -> None:
        await asyncio.gather(resync.run(), resync.run())

    asyncio.run(run_twice())
    assert looked == [Key("search", "docs")]
