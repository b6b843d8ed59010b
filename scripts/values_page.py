"""Write the chart's README with a table of its values, from values.yaml and its schema; a test compares the page with what this prints."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "charts" / "vectorindex"
PAGE: Final = CHART / "README.md"

Schema = dict[str, Any]

TEXT: Final = """# {name}

{description}. The chart installs the operator and the definition of
`VectorIndex`; [the project's README](../../README.md) tells what they do.

```sh
helm install vectorindex charts/vectorindex --namespace search --create-namespace --wait \\
  --set image.repository=registry.example/vectorindex-operator \\
  --set indexer.image.repository=registry.example/vectorindex-indexer
helm test vectorindex --namespace search --logs
```

Needs Kubernetes {kubernetes}, and Helm 3.17 or newer. [Install, upgrade, remove](../../docs/install.md) tells where
images come from, how to serve several namespaces or all of them, and what stays after `helm uninstall`.

## Values

Made from `values.yaml` and its schema by `make docs`. The schema is closed: a name that is not in the table, or a value that does
not fit, is an error that names it. A chart that has this one as a dependency may also set `enabled` (for its `condition`) and
`global`; neither does anything here.

{table}
"""


@dataclass(frozen=True)
class Value:
    """One value of the chart."""

    path: str
    default: Any
    description: str


def read_values(text: str) -> list[Value]:
    """Return every value with the comment above it; raise ValueError for one without."""
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        raise TypeError("expected a map of values")
    found = list(_walk(root, text.splitlines(), ""))
    bare = [value.path for value in found if not value.description]
    if bare:
        raise ValueError(f"values.yaml: no comment right above {', '.join(bare)}")
    return found


def _walk(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Value]:
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and any(_is_described(inner, lines) for inner in value.value):
            yield from _walk(value, lines, f"{path}.")
        else:
            default = yaml.safe_load(yaml.serialize(value))
            yield Value(path, default, _comment_above(key.start_mark.line, lines))


def _is_described(entry: tuple[yaml.Node, yaml.Node], lines: list[str]) -> bool:
    """Tell whether a value, or one inside it, has a comment."""
    key, value = entry
    inside = isinstance(value, yaml.MappingNode) and any(_is_described(inner, lines) for inner in value.value)
    return inside or bool(_comment_above(key.start_mark.line, lines))


def _comment_above(line: int, lines: list[str]) -> str:
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(text.strip().lstrip("#").strip() for text in lines[first:line])


def find_schema(document: Schema, path: str) -> Schema:
    """Return the schema of one value; raise KeyError when it has none."""
    part = document
    for name in path.split("."):
        part = _resolve(document, part["properties"][name])
    return part


def _resolve(document: Schema, part: Schema) -> Schema:
    return document["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def describe_type(document: Schema, part: Schema) -> str:
    """Return the type, or the words that a value may be."""
    part = _resolve(document, part)
    if "enum" in part:
        return ", ".join(f"`{word}`" for word in part["enum"])
    if part["type"] == "array":
        items = _resolve(document, part["items"])
        return f"list of {items['type']}s" if items["type"] in ("string", "integer") else "list"
    kind = part["type"] if isinstance(part["type"], str) else part["type"][0]  # any other is for those who can't write the first one
    return {"object": "map"}.get(kind, str(kind))


def describe_default(value: Any) -> str:
    """Return the default as one writes it in YAML."""
    return f"`{json.dumps(value)}`"


def render_table() -> str:
    """Return a Markdown table with all values, in the order of values.yaml."""
    document = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    lines = ["| value | type | default | meaning |", "|---|---|---|---|"]
    for value in read_values((CHART / "values.yaml").read_text(encoding="utf-8")):
        kind = describe_type(document, find_schema(document, value.path))
        lines.append(f"| `{value.path}` | {kind} | {describe_default(value.default)} | {value.description} |")
    return "\n".join(lines)


def render_page() -> str:
    """Return the whole page."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    return TEXT.format(
        name=chart["name"],
        description=chart["description"],
        kubernetes=chart["kubeVersion"].removeprefix(">=").removesuffix(".0-0") + " or newer",
        table=render_table(),
    )


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")
