"""What the indexer accepts equals what the CustomResourceDefinition accepts: fields, bounds, defaults, required fields."""

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
import yaml
from msgspec import Meta, Struct

from tests.support.manifests import GOOD, WRONG, Wrong
from tests.support.vector_index import make_manifest
from vectorindex_indexer import names, report
from vectorindex_indexer.config import SpecDocument, load_behaviour, load_identity
from vectorindex_indexer.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONTRACT = Path(__file__).parent
OPERATORS_OWN = {"storage", "network", "pod"}  # accepted by the indexer, and left to the operator

Facts = dict[str, Any]


def read_schema() -> Facts:
    definition = yaml.safe_load((ROOT / "crds" / "vectorindexes.yaml").read_text())
    (version,) = definition["spec"]["versions"]
    assert (definition["spec"]["group"], version["name"], definition["spec"]["names"]["kind"]) == (
        *names.API_VERSION.split("/"),
        names.KIND,
    )
    schema: Facts = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def collect_from_schema(schema: Facts, path: str, found: dict[str, Facts]) -> None:
    """Gather the facts of each field below `path`."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        facts = collect_bounds(field)
        if "default" in field and field["default"] != {}:
            facts["default"] = field["default"]
        if "items" in field and name not in OPERATORS_OWN:
            facts["items"] = collect_bounds(field["items"])
        facts["required"] = name in schema.get("required", [])
        found[here] = facts
        if not (path == "spec" and name in OPERATORS_OWN):
            collect_from_schema(field, here, found)


BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "enum")


def collect_bounds(field: Facts) -> Facts:
    """Return what a schema says of one value."""
    facts = {key: field[key] for key in BOUNDS if key in field}
    if facts.get("pattern", "").endswith("{0,62}$"):
        facts.pop("maxLength", None)  # said twice there, as the API server wants it for its cost of rules
    return facts


def collect_from_struct(kind: type[Struct], path: str, found: dict[str, Facts]) -> None:
    """Gather the same facts from the documents of the indexer."""
    hints = get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        here = f"{path}.{field.encode_name}"
        bare, metas = unwrap(hints[field.name])
        is_list = get_origin(bare) is list
        facts = collect_metas(metas, "Items" if is_list else "Length")
        if is_list:
            facts["items"] = collect_metas(unwrap(get_args(bare)[0])[1], "Length")
        is_struct = isinstance(bare, type) and issubclass(bare, Struct)
        if isinstance(bare, type) and issubclass(bare, str) and bare is not str:
            facts["enum"] = [member.value for member in bare]  # type: ignore[attr-defined]
        if field.default is not msgspec.NODEFAULT and field.default is not None and not is_struct:
            facts["default"] = field.default
        facts["required"] = field.required
        found[here] = facts
        if is_struct:
            collect_from_struct(bare, here, found)


def collect_metas(metas: list[Meta], unit: str) -> Facts:
    """Return what msgspec's annotations say of one value."""
    facts: Facts = {}
    for meta in metas:
        pairs = {"minimum": meta.ge, "maximum": meta.le, "pattern": meta.pattern}
        pairs |= {f"min{unit}": meta.min_length, f"max{unit}": meta.max_length}
        facts |= {key: value for key, value in pairs.items() if value is not None}
    if "pattern" in facts:
        facts["pattern"] = facts["pattern"].removesuffix(r"\Z") + "$"
    return facts


def unwrap(hint: Any) -> tuple[Any, list[Meta]]:
    """Return the type without `| None` and annotations, and the annotations."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is Annotated:
        bare, *extras = get_args(hint)
        return bare, [extra for extra in extras if isinstance(extra, Meta)]
    return hint, []


def test_the_indexer_accepts_what_the_definition_accepts() -> None:
    by_definition: dict[str, Facts] = {}
    by_indexer: dict[str, Facts] = {}
    collect_from_schema(read_schema(), "spec", by_definition)
    collect_from_struct(SpecDocument, "spec", by_indexer)
    assert by_indexer == by_definition


def write_manifest(folder: Path, spec: Facts) -> Path:
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump(make_manifest(**spec)))
    return file


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD.keys())
def test_the_indexer_accepts_what_the_api_server_accepts(tmp_path: Path, spec: Facts) -> None:
    """What the API server says of the same manifests is tested beside the definition."""
    assert load_identity(write_manifest(tmp_path, spec)).name == "docs"


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_the_indexer_refuses_what_the_api_server_refuses(tmp_path: Path, wrong: Wrong) -> None:
    file = write_manifest(tmp_path, wrong.spec)
    if wrong.operators_own:
        assert load_identity(file).name == "docs"
        return
    with pytest.raises(ConfigError) as refusal:
        load_identity(file)
    assert wrong.field in str(refusal.value)


def test_the_status_is_the_golden_document() -> None:
    golden = (CONTRACT / "status.json").read_bytes()
    status = msgspec.json.decode(golden, type=report.Status, strict=True)
    assert msgspec.json.decode(msgspec.json.encode(status)) == msgspec.json.decode(golden)


@pytest.mark.parametrize("field", ["result", "state", "reason"])
def test_the_golden_status_uses_words_of_the_closed_lists(field: str) -> None:
    status = msgspec.json.decode((CONTRACT / "status.json").read_bytes(), type=report.Status)
    words = {
        "result": names.Result(status.proof.result),
        "state": names.State(status.state),
        "reason": names.ProofReason(status.proof.reason),
    }
    assert words[field]


def test_the_golden_live_file_is_read() -> None:
    behaviour = load_behaviour(CONTRACT / "live.json", Path("/nowhere"))
    assert behaviour.last_proven is not None
