"""Operator and indexer share no package: here it shows that they mean the same by the same name."""

import enum
import re
from pathlib import Path

import pytest

from vectorindex_cli import names as cli
from vectorindex_cli import resource
from vectorindex_indexer import names as indexer
from vectorindex_operator import api, names, settings
from vectorindex_operator.names import ConditionType, ProofReason, QuarantineReason, Reason, SourceReason

ROOT = Path(__file__).resolve().parents[2]

SHARED = sorted(name for name in vars(indexer) if name.isupper() and name in vars(names))
ENUMS = ("Result", "State", "DriftKind", "SourceReason", "ProofReason", "QuarantineReason")


def test_every_constant_of_the_indexer_has_its_twin() -> None:
    assert sorted(name for name in vars(indexer) if name.isupper()) == SHARED


@pytest.mark.parametrize("name", SHARED)
def test_both_sides_mean_the_same(name: str) -> None:
    assert getattr(names, name) == getattr(indexer, name)


@pytest.mark.parametrize("name", ENUMS)
def test_both_sides_have_the_same_words(name: str) -> None:
    ours: type[enum.StrEnum] = getattr(names, name)
    theirs: type[enum.StrEnum] = getattr(indexer, name)
    assert {item.name: item.value for item in ours} == {item.name: item.value for item in theirs}


@pytest.mark.parametrize("name", sorted(name for name in vars(cli) if name.isupper()))
def test_the_command_line_means_the_same(name: str) -> None:
    assert getattr(cli, name) == (getattr(names, name) if name in vars(names) else getattr(api, name))


@pytest.mark.parametrize("name", ["ConditionType", "ConditionStatus"])
def test_the_command_line_has_the_same_words(name: str) -> None:
    assert [str(word) for word in getattr(cli, name)] == [str(word) for word in getattr(names, name)]


@pytest.mark.parametrize("part", ["Condition", "Drift", "Repair", "MemberPlan", "HeldPlan", "Member", "LastProven", "Status"])
def test_the_command_line_knows_no_field_that_the_operator_does_not_write(part: str) -> None:
    ours, theirs = getattr(resource, part), getattr(api, part)
    assert set(ours.__struct_encode_fields__) <= set(theirs.__struct_encode_fields__)


def test_every_reason_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "conditions.md").read_text()
    documented = re.findall(r"^\| `([A-Za-z]+)` \|", text, re.MULTILINE)
    conditions = [str(kind) for kind in ConditionType]
    assert sorted(documented) == sorted({*Reason, *SourceReason, *ProofReason, *conditions})
    assert not set(QuarantineReason) & set(documented)


def test_the_operator_listens_where_its_chart_looks() -> None:
    assert settings.Settings(indexer_image="x").ops_port == names.OPS_PORT
    assert (names.LIVEZ_PATH, names.READYZ_PATH) == ("/livez", "/readyz")


def test_the_kind_is_named_as_in_its_definition() -> None:
    text = (ROOT / "crds" / "vectorindexes.yaml").read_text()
    assert f"group: {names.API_GROUP}" in text
    assert f"plural: {names.PLURAL}" in text
    assert api.Spec.__struct_fields__[:2] == ("source", "index")
