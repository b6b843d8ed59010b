"""The example's requests and answers, as people read them."""

import io
import json

import pytest

from examples.wordnet.load import DIMENSION
from examples.wordnet.query import build_request, main, render_names


def test_a_request_holds_the_vector_of_the_words_own_gloss() -> None:
    request = json.loads(build_request("gold"))
    assert len(request["vector"]) == DIMENSION
    assert sum(number**2 for number in request["vector"]) == pytest.approx(1, abs=0.01)


def test_an_answer_is_shown_with_words() -> None:
    answer = {"asOf": "2026-11-25T09:00:00Z", "proven": False, "results": [{"id": 113353446, "score": 1.0}, {"id": 7, "score": 0.5}]}
    state, known, unknown = render_names(json.dumps(answer)).splitlines()
    assert state == "as of 2026-11-25T09:00:00Z, not proven"
    assert known.startswith("113353446  1.000  gold: great wealth;")
    assert unknown == "7  0.500  (a row of yours)"


def test_a_refusal_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"title": "not ready"}'))
    assert main(["--names"]) == 0
    assert capsys.readouterr().out == '{"title": "not ready"}\n'


def test_an_unknown_word_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nosuchword"]) == 1
    assert "nosuchword" in capsys.readouterr().err
