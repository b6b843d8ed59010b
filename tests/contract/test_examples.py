"""The examples beside the definition: both parsers read them, and the API server takes them (in the operator's integration tests)."""

from pathlib import Path

import pytest
import yaml

from tests.support.generated_specs import read_spec_schema
from tests.support.vector_index import SETTINGS
from vectorindex_indexer.config import load_identity
from vectorindex_operator import api, objects

FILES = sorted((Path(__file__).resolve().parents[2] / "crds" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_an_example_is_read_by_both_sides_and_means_the_same_to_them(file: Path, tmp_path: Path) -> None:
    body = yaml.safe_load(file.read_text())
    body["metadata"] |= {"namespace": "search", "uid": "u", "resourceVersion": "1"}
    index = api.parse_vector_index(body)
    assert index.problem == ""
    assert index.spec is not None
    told = tmp_path / "identity.yaml"
    told.write_text(api.identity_document(index, index.spec))
    whole = tmp_path / "whole.yaml"
    whole.write_text(yaml.safe_dump(body))
    one, other = load_identity(told), load_identity(whole)
    assert (one.source, one.index) == (other.source, other.index)
    assert objects.build_children(index, index.spec, SETTINGS, None).manifests


def test_every_field_of_the_spec_is_in_an_example() -> None:
    used = {field for file in FILES for field in fields_of(yaml.safe_load(file.read_text())["spec"])}
    assert names_of(read_spec_schema()) - used == {"suspend", "ephemeral-storage"}


def names_of(schema: api.Json) -> set[str]:
    parts = schema.get("properties", {})
    inner = [*parts.values(), *([schema["items"]] if "items" in schema else [])]
    return set(parts) | {name for part in inner for name in names_of(part)}


def fields_of(part: object) -> set[str]:
    if isinstance(part, list):
        return {field for item in part for field in fields_of(item)}
    if not isinstance(part, dict):
        return set()
    return set(part) | {field for item in part.values() for field in fields_of(item)}
