"""What a pod may say: the agreed document and nothing else."""

import json
from typing import Any

import pytest

from tests.support.vector_index import GOLDEN, merge
from vectorindex_operator.errors import ReportError
from vectorindex_operator.reports import parse_report

POD = "5e0a4c5e-2222-4c1e-9a51-000000000002"


def document(**changes: Any) -> bytes:
    return json.dumps(merge(json.loads(GOLDEN.read_text()), changes)).encode()


def test_the_golden_document_is_read() -> None:
    report = parse_report(document(), POD)
    assert (report.state, report.proof.result, report.view and report.view.rows) == ("Serving", "ok", 9500)
    assert report.quarantine == {"NullVector": 1}


def test_a_field_that_the_operator_does_not_know_is_no_error() -> None:
    assert parse_report(document(news={"a": 1}, proof={"more": True}), POD).ready


def test_a_replica_without_an_index_yet_is_read() -> None:
    changes = json.loads(document(proof={"rootDigest": "", "asOf": "", "snapshot": ""})) | {"view": None}
    assert parse_report(json.dumps(changes).encode(), POD).view is None


WRONG: dict[str, dict[str, Any]] = {
    "another version": {"version": 2},
    "unknown state": {"state": "Dancing"},
    "unknown result": {"proof": {"result": "maybe"}},
    "reason with spaces": {"proof": {"reason": "it is so"}},
    "negative rows": {"view": {"rows": -1}},
    "rows as text": {"view": {"rows": "many"}},
    "huge rows": {"view": {"rows": 2**63}},
    "digest with markup": {"proof": {"rootDigest": "<b>"}},
    "time in words": {"proof": {"asOf": "yesterday"}},
    "snapshot with text": {"proof": {"snapshot": "1:2:;drop"}},
    "incarnation with line break": {"proof": {"incarnation": "a\nb"}},
    "endless message": {"proof": {"message": "x" * 20000}},
    "too many repairs": {"repairs": [{}] * 11},
    "missing part": {"source": None},
    "too many reasons": {"quarantine": {f"R{n}": 1 for n in range(17)}},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG.keys())
def test_anything_else_is_refused_without_repeating_it(changes: dict[str, Any]) -> None:
    with pytest.raises(ReportError, match=r"^its status document is not as agreed$"):
        parse_report(document(**changes), POD)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100000, b'{"version": 1}'])
def test_what_is_no_such_document_is_refused(body: bytes) -> None:
    with pytest.raises(ReportError):
        parse_report(body, POD)


def test_an_answer_of_another_pod_is_refused() -> None:
    with pytest.raises(ReportError, match="another pod"):
        parse_report(document(), "5e0a4c5e-2222-4c1e-9a51-000000000003")
