"""The schema and the operator's types: same fields, same defaults, and everything bounded and described."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.support.vector_index import make_manifest
from vectorindex_operator import api, names
from vectorindex_operator.names import ConditionType, DriftKind, Result, State

ROOT = Path(__file__).resolve().parents[2]
DEFINITION = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())
(VERSION,) = DEFINITION["spec"]["versions"]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]
SPEC, STATUS = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]


def walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every schema below this one, with its path."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, f"{path}.{name}")
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], path + suffix)


ALL = [*walk(SPEC, "spec"), *walk(STATUS, "status")]


def test_every_field_is_described() -> None:
    assert [path for path, schema in ALL if not path.endswith(("[]", "{}")) and len(schema.get("description", "")) < 10] == []


def is_bounded(path: str, schema: dict[str, Any]) -> bool:
    kind = schema.get("type", "string")
    if kind == "string":
        return "enum" in schema or "maxLength" in schema
    if kind == "integer":
        return "minimum" in schema and ("maximum" in schema or (path.startswith("status") and schema.get("format") == "int64"))
    if kind == "array":
        return "maxItems" in schema and "x-kubernetes-list-type" in schema
    if kind == "object":
        return "properties" in schema or "maxProperties" in schema
    return bool(kind == "boolean")


def test_everything_is_bounded() -> None:
    assert [path for path, schema in ALL if not is_bounded(path, schema)] == []


def test_nothing_unknown_is_kept() -> None:
    assert [path for path, schema in ALL if schema.get("x-kubernetes-preserve-unknown-fields")] == []


def struct_schemas(
    kind: type[msgspec.Struct], schema: dict[str, Any], path: str
) -> Iterator[tuple[str, type[msgspec.Struct], dict[str, Any]]]:
    """Return each of our types with the schema of its place."""
    yield path, kind, schema
    for field in msgspec.structs.fields(kind):
        part = schema["properties"][field.encode_name]
        part = part.get("items", part)
        for option in getattr(field.type, "__args__", ()) or (field.type,):
            if isinstance(option, type) and issubclass(option, msgspec.Struct):
                yield from struct_schemas(option, part, f"{path}.{field.encode_name}")


PARTS = [*struct_schemas(api.Spec, SPEC, "spec"), *struct_schemas(api.Status, STATUS, "status")]


@pytest.mark.parametrize(("kind", "schema"), [part[1:] for part in PARTS], ids=[part[0] for part in PARTS])
def test_type_and_schema_have_the_same_fields_and_defaults(kind: type[msgspec.Struct], schema: dict[str, Any]) -> None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    assert set(fields) == set(schema["properties"])
    for name, part in schema["properties"].items():
        if "default" in part and part["default"] != {}:
            assert fields[name].default == part["default"], name


@pytest.mark.parametrize(("path", "schema"), [(path, schema) for path, _, schema in PARTS if path.startswith("spec")])
def test_what_has_no_default_is_optional_or_required_on_both_sides(path: str, schema: dict[str, Any]) -> None:
    kind = next(kind for place, kind, _ in PARTS if place == path)
    needed = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}
    assert needed == set(schema.get("required", ()))


def test_words_of_the_status_are_those_of_the_code() -> None:
    members = STATUS["properties"]["members"]["items"]["properties"]
    assert members["state"]["enum"] == [*State, names.UNREACHABLE]
    assert members["result"]["enum"] == list(Result)
    assert list(members["drift"]["properties"]) == list(DriftKind)
    assert STATUS["properties"]["conditions"]["items"]["properties"]["type"]["enum"] == list(ConditionType)


def test_a_status_is_not_taken_for_current_before_the_first_visit() -> None:
    assert STATUS["default"] == {"observedGeneration": -1}
    assert api.parse_status(STATUS["default"]) == api.NEVER_VISITED


def test_it_can_be_scaled() -> None:
    assert VERSION["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


def test_columns_are_those_people_look_for() -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert [column["name"] for column in columns if not column.get("priority")] == [
        *("Ready", "Consistent", "Replicas", "Rows", "Drift", "As-of", "Age"),
    ]
    assert [column["name"] for column in columns if column.get("priority")] == ["Message", "Digest", "Source"]


def test_the_small_manifest_of_the_tests_is_understood() -> None:
    assert api.parse_spec(make_manifest()["spec"]).replicas == 2
