"""The reference says what the schema says, of every field, and links every example."""

from pathlib import Path

import yaml

from scripts.reference_page import EXAMPLES, PAGE, find_objects, render_page

ROOT = Path(__file__).resolve().parents[3]
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_is_as_the_schema_has_it() -> None:
    assert render_page() == TEXT, "run `make docs`"


def test_every_field_and_every_rule_is_on_the_page() -> None:
    (version,) = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    parts = [part for name in ("spec", "status") for part in find_objects(schema["properties"][name], name)]
    for path, part in parts:
        section = TEXT.partition(f"## {path}\n")[2].partition("\n##")[0]
        assert [name for name in part["properties"] if f"| `{name}` |" not in section] == [], path
        assert [rule["message"] for rule in part.get("x-kubernetes-validations", ()) if rule["message"] not in TEXT] == []


def test_what_is_fixed_at_creation_is_marked() -> None:
    marked = [line.split("`")[1] for line in TEXT.splitlines() if "**fixed**" in line and line.startswith("|")]
    assert marked == ["storage", "table", "dimension", "metric"]


def test_every_example_says_what_it_shows() -> None:
    files = sorted(EXAMPLES.glob("*.yaml"))
    assert len(files) >= 5
    for file in files:
        (line,) = [line for line in TEXT.splitlines() if f"(../crds/examples/{file.name})" in line]
        assert len(line.partition("): ")[2]) > 40
