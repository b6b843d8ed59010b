"""Each value of the chart has a schema, a description and a row in the chart's README, and the schema knows no other."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from scripts.values_page import CHART, PAGE, find_schema, read_values, render_page

VALUES = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
OF_PARENTS = {"global", "enabled"}
"""What a chart that has this one as a dependency may set."""


def schema_paths(part: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, inner in part.get("properties", {}).items():
        found = SCHEMA["definitions"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        yield f"{prefix}{name}", found
        yield from schema_paths(found, f"{prefix}{name}.")


def test_the_page_is_as_the_values_have_it() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_page(), "run `make docs`"


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    for value in VALUES:
        assert find_schema(SCHEMA, value.path)
    known = {value.path for value in VALUES}
    for path, _ in schema_paths(SCHEMA):
        parents = {path.rsplit(".", count)[0] for count in range(path.count(".") + 1)}
        assert parents & known or any(value.startswith(f"{path}.") for value in known) or path in OF_PARENTS, path


def test_every_group_with_fixed_keys_is_closed() -> None:
    groups = [("", SCHEMA), *schema_paths(SCHEMA), *((f"definition {name}", part) for name, part in SCHEMA["definitions"].items())]
    items = [(f"entry of {path}", part["items"]) for path, part in groups if "items" in part]
    assert [path for path, part in [*groups, *items] if "properties" in part and part.get("additionalProperties") is not False] == []


def test_a_value_without_a_comment_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no comment right above image\.tag, other"):
        read_values("image:\n  # Where it is.\n  repository: a\n  tag: b\n\nother: 1\n# Free keys.\nlabels: {a: b}\n")
