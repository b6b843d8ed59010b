"""Compares live objects with built ones: whose is it, and does it still hold all that we put there? Pure."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from vectorindex_operator import api, names

# Lists whose entries are merged by a key when applied: entries that others added are not ours to judge.
MERGE_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "metadata.ownerReferences": ("uid",),
    "spec.ports": ("port", "protocol"),
    "spec.template.spec.containers": ("name",),
    "spec.template.spec.containers.env": ("name",),
    "spec.template.spec.containers.ports": ("containerPort", "protocol"),
    "spec.template.spec.containers.volumeMounts": ("mountPath",),
    "spec.template.spec.topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "spec.template.spec.volumes": ("name",),
}

# Values that are applied as a whole: anything added to them changes what they mean, and applying again takes it away.
EXACT: Final = frozenset({"spec.selector", "spec.podSelector", "spec.ingress", "spec.egress", "spec.policyTypes"})

_INDEX: Final = re.compile(r"\[\d+\]")
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?")
_FACTORS: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}


class Owner(Enum):
    """To whom a live object belongs, seen from one VectorIndex."""

    OURS = "ours"
    EARLIER_LIFE = "earlier life"  # a VectorIndex of the same name that was deleted; its objects are going away
    FOREIGN = "foreign"


def find_owner(live: Mapping[str, Any], index_name: str, uid: str) -> Owner:
    """Return whose object this is; the controller's UID decides, never a label."""
    controllers = [owner for owner in live["metadata"].get("ownerReferences") or [] if owner.get("controller")]
    if not controllers:
        return Owner.FOREIGN
    controller = controllers[0]
    if controller.get("uid") == uid:
        return Owner.OURS
    same_name = controller.get("kind") == names.KIND and controller.get("name") == index_name
    group = str(controller.get("apiVersion", "")).partition("/")[0]
    return Owner.EARLIER_LIFE if same_name and group == names.API_GROUP else Owner.FOREIGN


def outcome_hash(built: Mapping[str, Any], live: Mapping[str, Any]) -> str:
    """Return a hash of what was asked for together with what the API server made of it; its own bookkeeping is left out."""
    meta = {field: live["metadata"].get(field) for field in ("uid", "labels", "annotations", "ownerReferences")}
    content = {key: value for key, value in live.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    return api.short_hash(api.canonical([built, meta, content]))


def find_difference(built: object, live: object, path: str = "") -> str | None:
    """Return the path of the first thing we put there that is no longer so, or None. What others added is left alone."""
    if _INDEX.sub("", path) in EXACT:
        return None if built == live else path
    if isinstance(built, Mapping):
        if not isinstance(live, Mapping):
            return None if not built and live is None else path
        found = (find_difference(value, live.get(key), f"{path}.{key}" if path else key) for key, value in built.items())
        return next((place for place in found if place), None)
    if isinstance(built, list):
        return _find_list_difference(built, live if isinstance(live, list) else [], path)
    return None if built == live or _is_same_quantity(built, live) else path


def _find_list_difference(built: list[Any], live: list[Any], path: str) -> str | None:
    keys = MERGE_KEYS.get(_INDEX.sub("", path))
    if keys is None:
        if len(built) != len(live):
            return path
        pairs: Sequence[tuple[Any, Any]] = list(zip(built, live, strict=True))
    else:
        by_key = {tuple(item.get(key) for key in keys): item for item in live}
        pairs = [(item, by_key.get(tuple(item.get(key) for key in keys))) for item in built]
    found = (find_difference(wanted, actual, f"{path}[{number}]") for number, (wanted, actual) in enumerate(pairs))
    return next((place for place in found if place), None)


def _is_same_quantity(built: object, live: object) -> bool:
    """Tell whether both are the same amount: an API server rewrites `0.1` as `100m`."""
    if isinstance(built, bool) or isinstance(live, bool):
        return False
    first, second = _parse_quantity(built), _parse_quantity(live)
    return first is not None and first == second


def _parse_quantity(value: object) -> Decimal | None:
    match = _QUANTITY.fullmatch(str(value)) if isinstance(value, (str, int)) else None
    return Decimal(match[1]) * _FACTORS[match[2] or ""] if match else None
