"""The store of watched objects: news count by their version, in whatever order they come; what the watches miss is found by lists."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vectorindex_operator import names
from vectorindex_operator.names import Key
from vectorindex_operator.store import Claim, Ref, Store

DOCS = Key("search", "docs")
SERVICE = Ref("Service", "search", "docs-index")


def body(version: int, name: str = "docs-index", label: str = "docs", **fields: Any) -> dict[str, Any]:
    meta = {"namespace": "search", "name": name, "uid": "u", "resourceVersion": str(version), "labels": {names.INDEX_LABEL: label}}
    return {"metadata": meta, **fields}


def version_of(found: Mapping[str, Any] | None) -> int | None:
    return int(found["metadata"]["resourceVersion"]) if found else None


def test_what_is_told_is_found_by_name_and_by_index() -> None:
    store = Store()
    assert store.tell("Service", body(5, spec={"a": 1})) == DOCS
    found = store.get(*SERVICE)
    assert found is not None
    assert (found["kind"], found["apiVersion"], found["spec"]) == ("Service", "v1", {"a": 1})
    assert store.find("Service", DOCS) == [found]
    assert store.find("Pod", DOCS) == []
    assert store.get("Service", "search", "other") is None


def test_an_index_is_its_own() -> None:
    store = Store()
    assert store.tell(names.KIND, {"metadata": {"namespace": "search", "name": "docs", "resourceVersion": "3"}}) == DOCS
    assert list(store.keys()) == [DOCS]
    store.tell(names.KIND, {"metadata": {"namespace": "search", "name": "docs", "resourceVersion": "4"}}, gone=True)
    assert list(store.keys()) == []


def test_the_echo_of_an_own_write_is_no_news() -> None:
    store = Store()
    store.put("Service", body(7))
    assert store.tell("Service", body(6)) is None
    assert store.tell("Service", body(7)) is None
    assert version_of(store.get(*SERVICE)) == 7
    assert store.tell("Service", body(8)) == DOCS


NEWS = st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.booleans()), max_size=20, unique_by=lambda news: news[0])


@given(NEWS, st.randoms())
def test_in_whatever_order_news_come_the_newest_counts(news: list[tuple[int, bool, bool]], chance: Any) -> None:
    store = Store()
    shuffled = list(news)
    chance.shuffle(shuffled)
    for version, own, gone in shuffled:
        if own and not gone:
            store.put("Service", body(version))
        else:
            store.tell("Service", body(version), gone=gone)
    newest = max(news, default=(0, False, True))
    is_gone = newest[2]
    assert version_of(store.get(*SERVICE)) == (None if is_gone else newest[0])
    assert len(store.find("Service", DOCS)) == (not is_gone)


@given(st.sets(st.integers(1, 6)), st.sets(st.integers(1, 6)), st.booleans())
def test_after_a_list_the_store_holds_what_it_shows(known: set[int], listed: set[int], everywhere: bool) -> None:
    store = Store()
    for number in known:
        store.tell("Pod", body(number, f"docs-index-{number}"))
    items = [body(20 + number, f"docs-index-{number}") for number in listed]
    changed, claims = store.adopt("Pod", "" if everywhere else "search", items, 40)
    assert {found["metadata"]["name"] for found in store.find("Pod", DOCS)} == {f"docs-index-{number}" for number in listed}
    assert bool(changed) == bool(known | listed)
    missed = {claim.ref.name for claim in claims}
    assert missed == {f"docs-index-{number}" for number in known | listed}
    assert all(store.is_missed(claim) for claim in claims)
    for number in listed:
        store.tell("Pod", body(20 + number, f"docs-index-{number}"))
    for number in known - listed:
        store.tell("Pod", body(30 + number, f"docs-index-{number}"), gone=True)
    assert not any(store.is_missed(claim) for claim in claims)


def test_a_list_changes_nothing_that_was_made_after_it_or_lies_elsewhere() -> None:
    store = Store()
    store.tell("Service", body(50))
    store.tell("Service", {"metadata": {**body(1)["metadata"], "namespace": "other"}})
    store.tell("Pod", body(1))
    assert store.adopt("Service", "search", [], 40) == (set(), [])
    assert store.get(*SERVICE)
    assert store.get("Service", "other", "docs-index")
    assert store.find("Pod", DOCS)


def test_what_lists_can_not_show_is_kept() -> None:
    store = Store()
    foreign = body(5)
    del foreign["metadata"]["labels"]
    store.put("Service", foreign)
    assert store.adopt("Service", "", [], 40) == (set(), [])
    assert store.get(*SERVICE)


def test_a_stale_list_takes_nothing_back() -> None:
    store = Store()
    store.tell("Service", body(9))
    changed, claims = store.adopt("Service", "", [body(4)], 5)
    assert (changed, claims) == (set(), [])
    assert version_of(store.get(*SERVICE)) == 9


def test_what_is_gone_is_remembered_until_no_older_news_can_come() -> None:
    store = Store()
    store.tell("Service", body(5))
    store.tell("Service", body(9), gone=True)
    assert store.tell("Service", body(7)) is None
    store.adopt("Service", "", [], 20)
    assert store._entries == {}
    assert store._by_index == {}


def test_an_object_that_lost_its_label_is_still_known_as_ours() -> None:
    """A watch by label tells of it as deleted, in its new state."""
    store = Store()
    store.tell("Service", body(5))
    changed = body(6)
    del changed["metadata"]["labels"]
    assert store.tell("Service", changed, gone=True) == DOCS
    assert store.get(*SERVICE) is None


def test_of_managed_fields_only_who_wrote_how_is_kept() -> None:
    store = Store()
    meta = body(5)["metadata"] | {"managedFields": [{"manager": "m", "operation": "Update", "fieldsV1": {"f:spec": {}}, "time": "now"}]}
    store.put("Service", {"metadata": meta})
    found = store.get(*SERVICE)
    assert found is not None
    assert found["metadata"]["managedFields"] == [{"manager": "m", "operation": "Update"}]


def test_a_claim_about_what_nobody_knows_any_more_is_settled() -> None:
    assert not Store().is_missed(Claim(SERVICE, 5, 0))


def test_a_watch_that_lags_is_not_blind_and_one_that_leaves_something_out_is() -> None:
    store = Store()
    store.tell("Service", body(5))
    _, (first, last) = store.adopt("Service", "", [body(20), body(30, "docs-index-members")], 40)
    assert store.is_missed(first)  # it tells nothing any more
    store.tell("Service", body(10, "other"))
    assert not store.is_missed(first)
    store.tell("Service", body(30, "docs-index-members"))
    assert store.is_missed(first)
    assert not store.is_missed(last)


def test_an_object_that_lost_the_label_of_its_index_is_news_for_that_index() -> None:
    store = Store()
    store.tell("Service", body(5))
    changed = body(6)
    del changed["metadata"]["labels"]
    assert store.tell("Service", changed) == DOCS
    assert store.find("Service", DOCS) == []
