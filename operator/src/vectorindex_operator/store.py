"""Holds the newest known state of all watched objects: what the watches told, what our own requests answered, what lists showed.

Looks read from here and ask the API server nothing. Resource versions are compared as numbers, which Kubernetes promises for all its
objects since 1.35, so news that arrive in another order than they happened do no harm. Belongs to one event loop.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from vectorindex_operator import names
from vectorindex_operator.names import Key

_GONE: Final = b""

# Of `managedFields` only who wrote in which way is needed; the rest is most of an object.
_KEPT_OF_MANAGER: Final = ("manager", "operation", "subresource")


class Ref(NamedTuple):
    """Names one object."""

    kind: str
    namespace: str
    name: str


class Claim(NamedTuple):
    """A state that a list showed, and how far the watch of that kind had told then."""

    ref: Ref
    version: int
    told: int


class _Entry:
    __slots__ = ("content", "index", "told", "version")

    def __init__(self) -> None:
        self.version = 0  # of the newest state known
        self.told = 0  # newest version that the watches told
        self.index = ""  # whose object it is, by label; its own name for a VectorIndex
        self.content = _GONE  # as JSON: a tenth of the memory of parsed values


class Store:
    """All watched objects by kind, namespace and name."""

    def __init__(self) -> None:
        self._entries: dict[Ref, _Entry] = {}
        self._by_index: dict[Key, set[Ref]] = {}
        self._told: dict[str, int] = {}  # by kind: the newest version that its watch told

    def tell(self, kind: str, body: Mapping[str, Any], *, gone: bool = False) -> Key | None:
        """Take in what a watch told; return the index to look at if that is news."""
        entry, key = self._set(kind, body, gone=gone)
        entry.told = max(entry.told, _version(body))
        self._told[kind] = max(self._told.get(kind, 0), entry.told)
        return key

    def put(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take in what the API server answered to a request of our own."""
        self._set(kind, body, gone=False)

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Take in that the API server has no such object."""
        entry = self._entries.get(Ref(kind, namespace, name))
        if entry is not None:
            entry.content = _GONE

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Return the object, or None when none is known."""
        entry = self._entries.get(Ref(kind, namespace, name))
        return _decode(kind, entry) if entry else None

    def find(self, kind: str, key: Key) -> list[dict[str, Any]]:
        """Return all objects of a kind that bear the label of this index."""
        refs = sorted(ref for ref in self._by_index.get(key, ()) if ref.kind == kind)
        found = (_decode(kind, self._entries[ref]) for ref in refs)
        return [body for body in found if body is not None]

    def keys(self) -> Iterator[Key]:
        """Return every VectorIndex there is."""
        return (Key(ref.namespace, ref.name) for ref, entry in self._entries.items() if ref.kind == names.KIND and entry.content)

    def adopt(self, kind: str, namespace: str, items: Iterable[Mapping[str, Any]], version: int) -> tuple[set[Key], list[Claim]]:
        """Take in a whole list of a kind (of one namespace, or of all when that is empty), made at this version.

        Return the indexes to look at, and what the watches should have told by themselves.
        """
        changed: set[Key] = set()
        claims: list[Claim] = []
        told = self._told.get(kind, 0)
        listed: set[Ref] = set()
        for body in items:
            listed.add(_ref(kind, body))
            entry, key = self._set(kind, body, gone=False)
            if key:
                changed.add(key)
            if entry.told < entry.version:
                claims.append(Claim(_ref(kind, body), entry.version, told))
        for ref in [ref for ref in self._entries if ref.kind == kind and namespace in ("", ref.namespace) and ref not in listed]:
            entry = self._entries[ref]
            if entry.version > version:
                continue  # made after the list
            if entry.content == _GONE:
                self._forget(ref, entry)
            elif entry.index:  # what bears no label of ours is in no list
                entry.content = _GONE
                changed.add(Key(ref.namespace, entry.index))
                claims.append(Claim(ref, entry.version + 1, told))
        return changed, claims

    def is_missed(self, claim: Claim) -> bool:
        """Tell, a while after the list, whether the watch has missed this state: it told newer ones, or nothing at all any more.

        A watch that lags behind, as after thousands of changes, still tells something.
        """
        entry = self._entries.get(claim.ref)
        if entry is None or entry.told >= claim.version:
            return False
        told = self._told.get(claim.ref.kind, 0)
        return told >= claim.version or told == claim.told

    def _set(self, kind: str, body: Mapping[str, Any], *, gone: bool) -> tuple[_Entry, Key | None]:
        ref, version = _ref(kind, body), _version(body)
        entry = self._entries.setdefault(ref, _Entry())
        if version <= entry.version and not (gone and version == entry.version and entry.content):
            return entry, None
        before = entry.index
        entry.version = version
        entry.content = _GONE if gone else _encode(body)
        label = (body["metadata"].get("labels") or {}).get(names.INDEX_LABEL, before if gone else "")
        entry.index = ref.name if kind == names.KIND else label
        if before and before != entry.index:
            self._by_index.get(Key(ref.namespace, before), set()).discard(ref)
        if not entry.index:
            return entry, Key(ref.namespace, before) if before else None
        key = Key(ref.namespace, entry.index)
        self._by_index.setdefault(key, set()).add(ref)
        return entry, key

    def _forget(self, ref: Ref, entry: _Entry) -> None:
        """Drop what is gone: kept until now, as older news of it could still have come."""
        del self._entries[ref]
        key = Key(ref.namespace, entry.index)
        refs = self._by_index.get(key, set())
        refs.discard(ref)
        if not refs:
            self._by_index.pop(key, None)


def _ref(kind: str, body: Mapping[str, Any]) -> Ref:
    return Ref(kind, body["metadata"]["namespace"], body["metadata"]["name"])


def _version(body: Mapping[str, Any]) -> int:
    return int(body["metadata"]["resourceVersion"])


def _encode(body: Mapping[str, Any]) -> bytes:
    meta = dict(body["metadata"])
    managers = meta.get("managedFields") or []
    meta["managedFields"] = [{field: one[field] for field in _KEPT_OF_MANAGER if field in one} for one in managers]
    return msgspec.json.encode({**body, "metadata": meta})


def _decode(kind: str, entry: _Entry) -> dict[str, Any] | None:
    if not entry.content:
        return None
    return {**msgspec.json.decode(entry.content), "apiVersion": names.API_VERSIONS[kind], "kind": kind}  # lists leave these two out
