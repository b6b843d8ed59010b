"""Specs made from the schema itself: valid ones at and between their bounds, and valid ones with one thing wrong. Seeded, so repeatable."""

import copy
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]

# What fits each pattern of the schema, and what does not. `test_every_pattern_has_samples` keeps this complete.
SAMPLES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "host": (("pg", "10.0.0.7", "fd00::7", "pg-rw.db.svc.cluster.local", "a" * 253), ("-pg", "user@pg", "pg/db", "a,b", "pg.")),
    "text": (("m", "Qwen/Qwen3-Embedding-0.6B", "ключ ä 🙂", "a b'\"; drop", "x" * 63), ("", "a\nb", "\x00", "\x7f")),
    "object": (("docs", "a.b-c.0", "a" * 253, "0"), ("", "Docs", "a_b", "a..b", "-a", "a-", "a" * 254)),
    "key": (("ca.crt", "A_b-c.pem", "k" * 253), ("", "a/b", "a b", "k" * 254)),
    "identifier": (("embeddings", "_a", "CamelCase9", "x" * 63), ("", "9a", "a-b", 'a"; drop table b; --', "x" * 64)),
    "label": (("a", "app.kubernetes.io/name", "x" * 63, "a.b/" + "C" * 63), ("", "a b", "a/b/c", "x" * 64, "A.b/C", "-a")),
    "optional label": (("a", "example.com/gpu", "x" * 63), ("a b", "a/b/c", "x" * 64)),
    "value": (("", "web", "A_b.c-9", "v" * 63), ("a b", "-a", "v" * 64, "ä")),
    "size": (("1", "10Gi", "999999T", "123456789012345", "512Mi"), ("", "0", "01Gi", "1.5Gi", "plenty", "1234567Ti", "10gi", "-1Gi")),
    "quantity": (("100m", "1", "0.5", "1.5Gi", "2G", "123456789012345"), ("", "-1", "1e3", "0.0001", "1u", "1.5m", "much", "1 Gi")),
}
_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL = rf"({_NAME}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"
_PATTERNS = {
    "^[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?$": "host",
    r"^[^\x00-\x1f\x7f-\x9f]+$": "text",
    f"^{_NAME}$": "object",
    "^[-._a-zA-Z0-9]+$": "key",
    "^[A-Za-z_][A-Za-z0-9_]{0,62}$": "identifier",
    f"^{_LABEL}$": "label",
    f"^({_LABEL})?$": "optional label",
    "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$": "value",
    "^[1-9]([0-9]{0,14}|[0-9]{0,5}([kMGT]|[KMGT]i))$": "size",
    r"^([0-9]{1,9}m|[0-9]{1,15}|[0-9]{1,6}(\.[0-9]{1,3})?([kMGT]|[KMGT]i)?)$": "quantity",
}
RANGES = ("10.0.0.0/8", "192.168.7.9/32", "0.0.0.0/0", "fd00::/8", "2001:db8::1/128")

INT64 = 2**63


def read_spec_schema() -> Json:
    """Return the schema of `spec`."""
    (version,) = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())["spec"]["versions"]
    schema: Json = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def samples_of(pattern: str) -> tuple[Sequence[str], Sequence[str]]:
    """Return what fits a pattern and what does not; raise KeyError for a pattern that has no samples yet."""
    return SAMPLES[_PATTERNS[pattern]]


@dataclass(frozen=True)
class Broken:
    """A spec with one thing wrong: which, and what the refusal must name."""

    spec: Json
    what: str
    field: str


class SpecMaker:
    """Makes specs out of the schema, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._schema = read_spec_schema()

    def make_wild(self) -> Json:
        """Return a spec of which each field fits by itself; the rules between fields may be broken."""
        spec: Json = self._make(self._schema, fullness=self._random.choice((0.15, 0.4, 0.7, 1.0)))
        if spec.get("replicas", 2) > 3 and self._random.random() < 0.8:
            spec["replicas"] = self._random.choice((1, 2, 3))  # each is a pod that has to be made
        return spec

    def make_valid(self, fixed: Json | None = None) -> Json:
        """Return a spec that fits as a whole. What is fixed at creation is taken from `fixed`, if that is given."""
        spec = fit(self.make_wild())
        if fixed is not None:
            spec["source"]["table"] = fixed["source"]["table"]
            spec["index"] |= {key: fixed["index"][key] for key in ("dimension", "metric") if key in fixed["index"]}
            if "metric" not in fixed["index"]:
                spec["index"].pop("metric", None)
            spec.pop("storage", None)
            spec |= {"storage": fixed["storage"]} if "storage" in fixed else {}
        return copy.deepcopy(spec)

    def make_broken(self) -> Broken:
        """Return a valid spec with one thing wrong that the schema alone forbids."""
        spec = self.make_valid()
        places = list(_walk(spec, self._schema, ("spec",)))
        while True:
            path, value, schema = self._random.choice(places)
            found = list(self._break(path, value, schema))
            if found:
                what, field, wrong = self._random.choice(found)
                return Broken(_replaced(spec, path[1:], wrong), f"{_dotted(path)}: {what}", field)

    # --- values ---

    def _make(self, schema: Json, fullness: float) -> Any:
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        if schema.get("x-kubernetes-int-or-string"):
            return self._random.choice([*samples_of(schema["pattern"])[0], 0, 1, schema["maximum"]])
        return getattr(self, f"_make_{schema['type']}")(schema, fullness)

    def _make_boolean(self, _schema: Json, _fullness: float) -> bool:
        return self._random.random() < 0.5

    def _make_integer(self, schema: Json, _fullness: float) -> int:
        low, high = schema["minimum"], schema["maximum"]
        return self._random.choice((low, high, min(high, low + 1), max(low, high - 1), self._random.randint(low, high)))

    def _make_string(self, schema: Json, _fullness: float) -> str:
        if "pattern" not in schema:
            return self._random.choice(RANGES)  # the schema's strings without a pattern are ranges of addresses
        fitting = [text for text in samples_of(schema["pattern"])[0] if len(text) <= schema["maxLength"]]
        return self._random.choice(fitting)

    def _make_array(self, schema: Json, fullness: float) -> list[Any]:
        low, high = schema.get("minItems", 0), schema["maxItems"]
        length = high if self._random.random() < 0.03 else self._random.randint(low, min(high, low + 2))
        return [self._make(schema["items"], fullness) for _ in range(length)]

    def _make_object(self, schema: Json, fullness: float) -> Json:
        if "additionalProperties" in schema:
            names = self._random.sample(SAMPLES["label"][0], self._random.randint(0, 3))
            return {name: self._make(schema["additionalProperties"], fullness) for name in names}
        required = schema.get("required", ())
        chosen = [name for name in schema["properties"] if name in required or self._random.random() < fullness]
        if not chosen and schema.get("minProperties"):
            chosen = [self._random.choice(list(schema["properties"]))]
        return {name: self._make(schema["properties"][name], fullness) for name in chosen}

    # --- what can be wrong ---

    def _break(self, path: tuple[str | int, ...], value: Any, schema: Json) -> Iterator[tuple[str, str, Any]]:
        """Return all single faults of a place: what, the field that the refusal must name, the value."""
        here = _dotted(path)
        if len(path) > 1:
            yield "wrong type", here, True if schema.get("type") != "boolean" else "yes"
        if isinstance(value, dict) and "properties" in schema:
            yield "unknown field", f"{here}.unheardOf", value | {"unheardOf": 1}
            for name in schema.get("required", ()):
                yield f"{name} is missing", f"{here}.{name}", {key: item for key, item in value.items() if key != name}
        if isinstance(value, dict) and "maxProperties" in schema:
            yield "too many", here, {f"k{number}": "v" for number in range(schema["maxProperties"] + 1)}
        if "enum" in schema:
            yield "not a word of it", here, "Sometimes"
        elif schema.get("type") == "integer":
            yield "too low", here, schema["minimum"] - 1
            yield "too high", here, schema["maximum"] + 1
            yield "not whole", here, schema["minimum"] + 0.5
            yield "beyond 64 bits", here, INT64
        elif "pattern" in schema:
            yield from (("does not fit", here, text) for text in samples_of(schema["pattern"])[1])
            yield "too long", here, "1" * (schema["maxLength"] + 1)
        if schema.get("x-kubernetes-int-or-string"):
            yield "too low", here, schema["minimum"] - 1
            yield "too high", here, schema["maximum"] + 1
        if isinstance(value, list):
            yield "too many", here, self._make_many(schema)
            if schema.get("minItems"):
                yield "too few", here, value[:-1]

    def _make_many(self, schema: Json) -> list[Any]:
        return [self._make(schema["items"], 0.1) for _ in range(schema["maxItems"] + 1)]


def fit(spec: Json) -> Json:
    """Return the spec with the rules between fields kept, by the smallest change."""
    spec = copy.deepcopy(spec)
    _fit_source(spec["source"])
    kind = spec["index"].get("type", "HNSW")
    for part, needed in (("hnsw", "HNSW"), ("ivf", "IVFFlat")):
        if kind != needed:
            spec["index"].pop(part, None)
    consistency = spec.get("consistency", {})
    if consistency.get("maxStalenessSeconds", 300) <= consistency.get("periodSeconds", 30):
        consistency["periodSeconds"] = 4
    for peer in (*spec.get("network", {}).get("clients", []), *spec.get("network", {}).get("source", [])):
        _fit_peer(peer)
    if "pod" in spec:
        _fit_pod(spec["pod"])
    return spec


def _fit_source(source: Json) -> None:
    if ("model" in source) != ("model" in source["columns"]):
        source["model"], source["columns"]["model"] = "m", "model_name"
    tombstone = source.get("tombstone")
    if tombstone is not None and len(tombstone) != 1:
        source["tombstone"] = {"metadata": tombstone["metadata"]} if "metadata" in tombstone else {"column": "deleted"}
    if "model" not in source:
        source.get("tombstone", {}).get("metadata", {}).pop("model", None)
    columns = source.get("digests", {}).get("columns")
    if columns and columns[0] == columns[1]:
        columns[1] = "d2"
    postgres = source["postgres"]
    if postgres.get("sslMode", "VerifyFull") in ("VerifyCA", "VerifyFull"):
        if ("caSecretRef" in postgres) == ("caConfigMapRef" in postgres):
            postgres.pop("caSecretRef", None)
            postgres["caConfigMapRef"] = {"name": "pg-ca"}
    else:
        postgres.pop("caSecretRef", None)
        postgres.pop("caConfigMapRef", None)
    if postgres.get("sslMode") == "Disable":
        postgres.pop("clientCertificateSecretRef", None)


def _fit_peer(peer: Json) -> None:
    if "ipBlock" in peer:
        peer.pop("podSelector", None)
        peer.pop("namespaceSelector", None)
        parts = {"10.0.0.0/8": "10.7.0.0/16", "0.0.0.0/0": "10.0.0.0/8", "fd00::/8": "fd00:7::/32"}
        if peer["ipBlock"].get("except"):
            cidr = peer["ipBlock"]["cidr"]
            peer["ipBlock"]["except"] = [parts[cidr]] if cidr in parts else []
    for selector in (peer.get("podSelector", {}), peer.get("namespaceSelector", {})):
        for requirement in selector.get("matchExpressions", []):
            if requirement["operator"] in ("In", "NotIn"):
                requirement["values"] = requirement.get("values") or ["v"]
            else:
                requirement.pop("values", None)


def _fit_pod(pod: Json) -> None:
    for toleration in pod.get("tolerations", []):
        if not toleration.get("key"):
            toleration["operator"] = "Exists"
        if toleration.get("operator") == "Exists":
            toleration.pop("value", None)
        if toleration.get("effect") != "NoExecute":
            toleration.pop("tolerationSeconds", None)
    if "topologySpreadConstraints" in pod:
        keyed = {(each["topologyKey"], each["whenUnsatisfiable"]): each for each in pod["topologySpreadConstraints"]}
        pod["topologySpreadConstraints"] = list(keyed.values())
    resources = pod.get("resources", {})
    for name in set(resources.get("requests", {})) & set(resources.get("limits", {})):
        resources["requests"][name] = resources["limits"][name]


def _walk(value: Any, schema: Json, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any, Json]]:
    """Return each place of a value with its schema."""
    yield path, value, schema
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(item, schema.get("properties", {}).get(name) or schema["additionalProperties"], (*path, name))
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _walk(item, schema["items"], (*path, number))


def _replaced(spec: Json, path: tuple[str | int, ...], wrong: Any) -> Json:
    if not path:
        result: Json = wrong
        return result
    result = copy.deepcopy(spec)
    place: Any = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = wrong
    return result


def _dotted(path: tuple[str | int, ...]) -> str:
    return re.sub(r"\.\[", "[", ".".join(f"[{step}]" if isinstance(step, int) else step for step in path))
