"""The FAQ explains every reason for which `Consistent` can be Unknown, and why rows are quarantined."""

import re
from pathlib import Path

from tests.unit.operator.test_reasons import TOLD, UNREADABLE, render
from vectorindex_operator.names import ConditionStatus, ConditionType, QuarantineReason, Reason

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "faq.md").read_text(encoding="utf-8")


def find_section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def test_every_reason_for_unknown_is_explained_and_no_other() -> None:
    conditions = [render(told)[1].condition(ConditionType.CONSISTENT) for told in TOLD.values()]
    unknown = {each.reason for each in conditions if each is not None and each.status is ConditionStatus.UNKNOWN} | UNREADABLE
    rows = re.findall(r"^\| (`.*?) \|", find_section("Why is it Unknown?"), re.MULTILINE)
    explained = [reason for row in rows for reason in re.findall(r"`(\w+)`", row)]
    assert len(explained) == len(set(explained))
    assert set(explained) == unknown | {Reason.ROLLING_OUT}  # while a replica still has the former source


def test_every_reason_for_quarantine_is_named() -> None:
    assert set(re.findall(r"`([A-Z]\w+)`", find_section("Why are rows quarantined?"))) - {"Cosine"} == {
        str(reason) for reason in QuarantineReason
    }
