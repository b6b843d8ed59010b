"""What checkov finds must be put right or be an exception with a reason, and exceptions don't outlive their findings."""

import pytest

from scripts.check_manifests import EXCEPTIONS, Finding, find_problems, parse_exceptions

FINDING = Finding("CKV_K8S_22", "chart.yaml", "Deployment.search.vectorindex", "Use a read-only file system")
EXCEPTION = "{rule: CKV_K8S_22, object: chart.yaml Deployment.*, reason: it writes}"


def problems(findings: list[Finding], exceptions: str) -> list[str]:
    return find_problems(findings, parse_exceptions(exceptions))


def test_a_finding_without_exception_is_a_problem() -> None:
    assert problems([FINDING], "") == ["CKV_K8S_22 chart.yaml Deployment.search.vectorindex: Use a read-only file system"]


def test_an_exception_covers_its_rule_and_objects_only() -> None:
    assert problems([FINDING], f"[{EXCEPTION}]") == []
    other_rule = Finding("CKV_K8S_20", FINDING.file, FINDING.object, "other")
    other_object = Finding(FINDING.rule, "generated.yaml", FINDING.object, "other")
    assert len(problems([FINDING, other_rule, other_object], f"[{EXCEPTION}]")) == 2


def test_an_exception_that_meets_nothing_is_a_problem() -> None:
    (problem,) = problems([], f"[{EXCEPTION}]")
    assert problem.startswith("CKV_K8S_22 for chart.yaml Deployment.*: nothing breaks this rule")


def test_each_exception_has_a_reason() -> None:
    assert parse_exceptions(EXCEPTIONS.read_text())
    with pytest.raises(ValueError, match="needs a reason"):
        parse_exceptions("[{rule: CKV_K8S_22, object: x}]")
