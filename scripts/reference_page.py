"""Write docs/reference.md from the schema of the resource; a test compares the page with what this prints."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "reference.md"
DEFINITION: Final = ROOT / "crds" / "vectorindexes.yaml"
EXAMPLES: Final = ROOT / "crds" / "examples"

Schema = dict[str, Any]

TEXT: Final = """# Reference of VectorIndex

Every field of `{api_version}`, kind `{kind}` (short name `{short}`), made from the schema by `make docs`.
`kubectl explain vidx.spec.source` says the same of the cluster at hand. An API server refuses what does not fit, names the field,
and fills in the defaults.

"Bounds" are what a value must keep to (a length counts characters); **required** fields must be there; **fixed** ones can't change
once the index is created, as answers would mean something else. All others may be changed at any time: `source` and `index` build
the index anew, replica by replica, while the others serve; `pod` restarts the pods one by one; `replicas` adds or removes pods;
running pods read the rest within seconds.

With server-side apply, take a part away by leaving out its key: where `pod: {{}}` takes the place of a `pod` that had fields, an API
server itself makes `null` of it, and refuses that.

## Complete examples

{examples}

## metadata

{metadata}

Wishes are annotations. A time is written as in RFC 3339, such as `2026-11-25T09:00:00Z`.

| annotation | value | answered in |
|---|---|---|
| `vectorindex.dev/validate-requested-at` | a time: each replica checks once more, at once | `status.validateRequestedAt` |
| `vectorindex.dev/rebuild-requested-at` | a time: each replica builds its index anew | `status.rebuildRequestedAt` |
| `vectorindex.dev/approve-plan` | ids of [held plans](held-plans.md), by commas, 20 at most | `status.approvedPlans` |

## spec

{spec}

## status

Conditions and all their reasons: [conditions.md](conditions.md). `kubectl get vidx` shows {columns}; with `-o wide` also {wide}.
`kubectl scale` and autoscalers work on `spec.replicas`.

{status}
"""


def render_page() -> str:
    """Return the whole page."""
    definition = yaml.safe_load(DEFINITION.read_text(encoding="utf-8"))["spec"]
    (version,) = definition["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    columns = version["additionalPrinterColumns"]
    shown = {wide: ", ".join(column["name"] for column in columns if bool(column.get("priority")) is wide) for wide in (False, True)}
    return TEXT.format(
        api_version=f"{definition['group']}/{version['name']}",
        kind=definition["names"]["kind"],
        short=definition["names"]["shortNames"][0],
        examples="\n".join(render_example(file) for file in sorted(EXAMPLES.glob("*.yaml"))),
        metadata="\n".join(render_rules(schema)),
        spec=render_parts(schema["properties"]["spec"], "spec"),
        status=render_parts(schema["properties"]["status"], "status"),
        columns=shown[False],
        wide=shown[True],
    )


def render_example(file: Path) -> str:
    """Return a line of the list, with the comment at the top of the example."""
    comment = re.match(r"(?:# .*\n)+", file.read_text(encoding="utf-8"))
    text = " ".join(line.removeprefix("# ") for line in comment[0].splitlines()) if comment else ""
    return f"- [{file.stem}](../crds/examples/{file.name}): {text}"


def render_parts(schema: Schema, path: str) -> str:
    """Return a section for each object, of which the first is this one."""
    sections = [f"### {part}\n\n{render_section(found)}" for part, found in find_objects(schema, path)]
    return "\n\n".join([sections[0].partition("\n\n")[2], *sections[1:]])


def find_objects(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Return each object that has fields, with its path."""
    yield path, schema
    for name, part in schema["properties"].items():
        suffix = "[]" if "items" in part else ""
        inner = part.get("items", part)
        if "properties" in inner:
            yield from find_objects(inner, f"{path}.{name}{suffix}")


def render_section(schema: Schema) -> str:
    """Return the description, the table of the fields and the rules between them."""
    fixed = {name for name in schema["properties"] for rule in schema.get("x-kubernetes-validations", ()) if is_fixing(rule, name)}
    lines = [schema["description"], "", "| field | type | default | bounds | meaning |", "|---|---|---|---|---|"]
    for name, part in schema["properties"].items():
        marks = ["**required**"] * (name in schema.get("required", ())) + ["**fixed**"] * (name in fixed or is_fixed(part))
        lines.append(
            " | ".join((f"| `{name}`", describe_type(part), describe_default(part), describe_bounds(part), describe(part, marks))) + " |"
        )
    rules = render_rules(schema)
    return "\n".join([*lines, *(["", *rules] if rules else [])])


def describe(part: Schema, marks: list[str]) -> str:
    """Return what a field is for, after what must be kept in mind."""
    text = part["description"].replace("|", "\\|")
    return f"{', '.join(marks)}. {text}" if marks else text


def is_fixed(part: Schema) -> bool:
    """Tell whether a field can't change."""
    return any(rule["rule"] == "self == oldSelf" for rule in part.get("x-kubernetes-validations", ()))


def is_fixing(rule: Schema, name: str) -> bool:
    """Tell whether a rule of the parent keeps this field from changing."""
    return "oldSelf" in rule["rule"] and rule.get("fieldPath") == f".{name}"


def render_rules(schema: Schema) -> list[str]:
    """Return what must hold between fields."""
    own = [rule["message"] for rule in schema.get("x-kubernetes-validations", ())]
    parts = schema["properties"].values()
    lists = [rule["message"] for part in parts if "properties" not in part for rule in part.get("x-kubernetes-validations", ())]
    return [f"- {message}" for message in dict.fromkeys(own + lists)]


def describe_type(part: Schema) -> str:
    """Return the type, that of the entries included."""
    if part.get("x-kubernetes-int-or-string"):
        return "quantity"
    if part["type"] == "array":
        return f"list of {describe_type(part['items'])}"
    if "additionalProperties" in part:
        return f"map to {describe_type(part['additionalProperties'])}"
    if part.get("format") == "date-time":
        return "time"
    return str(part["type"])


def describe_default(part: Schema) -> str:
    """Return the value that is filled in."""
    if "default" not in part or part["default"] == {}:
        return ""
    value = part["default"]
    text = (
        str(value).lower()
        if isinstance(value, bool)
        else ", ".join(f"{key}: {item}" for key, item in value.items())
        if isinstance(value, dict)
        else value
    )
    return f"`{text}`"


def describe_bounds(part: Schema) -> str:
    """Return what a value must keep to."""
    bounds = []
    if "enum" in part:
        bounds.append(", ".join(f"`{word}`" for word in part["enum"]))
    if "minimum" in part:
        bounds.append(f"{part['minimum']} to {part['maximum']}" if "maximum" in part else f"at least {part['minimum']}")
    for unit, noun in (("Length", "characters"), ("Items", "entries"), ("Properties", "entries")):
        low, high = part.get(f"min{unit}"), part.get(f"max{unit}")
        if high is not None and "enum" not in part:
            bounds.append(f"{low} to {high} {noun}" if low not in (None, high) else f"{'exactly' if low else 'at most'} {high} {noun}")
    if "pattern" in part:
        bounds.append(f"`{part['pattern']}`".replace("|", "\\|"))
    inner = part.get("items") or part.get("additionalProperties")
    if inner and "properties" not in inner:
        bounds.append(f"each {describe_bounds(inner)}")
    return "; ".join(bounds)


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
