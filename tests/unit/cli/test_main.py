"""Arguments, the screen, and what happens before the first request."""

import argparse
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from kubernetes.client import ApiException

from vectorindex_cli import __main__ as entry
from vectorindex_cli import access
from vectorindex_cli.arguments import make_parser
from vectorindex_cli.commands import Command, Screen
from vectorindex_cli.documents import FORMS, dump
from vectorindex_cli.progress import Shown

ROOT = Path(__file__).resolve().parents[3]


def test_common_options_may_stand_on_both_sides_of_the_verb() -> None:
    parser = make_parser()
    before = parser.parse_args(["-n", "search", "--color", "never", "status", "docs"])
    after = parser.parse_args(["status", "docs", "-n", "search", "--color", "never"])
    assert (before.namespace, before.color) == (after.namespace, after.color) == ("search", "never")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["status"],
        ["approve", "docs"],
        ["mend", "docs"],
        ["status", "docs", "-o", "xml"],
        ["diff", "docs", "--limit", "0"],
        ["search", "docs"],
        ["search", "docs", "--vector", "-", "-k", "ten"],
        ["completion", "tcsh"],
        ["validate", "docs", "--wait", "--timeout", "nan"],
        ["rebuild", "docs", "--wait", "--timeout", "inf"],
        ["rebuild", "docs", "--wait", "--timeout", "-1"],
    ],
)
def test_what_can_not_be_understood_is_an_error_of_code_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        entry.main(arguments)
    assert ended.value.code == 2
    assert "usage: " in capsys.readouterr().err


def test_a_kubeconfig_that_is_none_is_named_without_its_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text("token: hunter2\n")
    assert entry.main(["status", "docs", "--kubeconfig", str(kubeconfig)]) == 2
    told = capsys.readouterr().err
    assert (str(kubeconfig) in told, "hunter2" in told) == (True, False)


@pytest.mark.parametrize(
    "content", ["clusters: [\nhunter2", "[hunter2]", "contexts: 7", "current-context: a\ncontexts: [{name: a}]", "\x00"]
)
def test_a_kubeconfig_of_another_form_is_no_verdict(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(content)
    assert entry.main(["status", "docs", "--kubeconfig", str(kubeconfig)]) == 2
    told = capsys.readouterr().err
    assert ("no usable kubeconfig" in told, "hunter2" in told) == (True, False)


def test_a_defect_is_no_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Python's own exit code would be 1, which says that rows differ."""

    def fail(*_: object) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(access, "connect", fail)
    assert entry.main(["status", "docs"]) == 2
    assert "LookupError: a defect" in capsys.readouterr().err


@pytest.mark.parametrize("status", [0, 304, 404, 409, 429, 460, 499, 520])
def test_any_status_of_an_answer_is_one_sentence(status: int) -> None:
    assert "VectorIndex search/docs" in str(access._explain(ApiException(status=status), "get", "search/docs")) or status == 404


def test_a_reader_that_goes_away_is_no_verdict() -> None:
    command = f"{shlex.quote(sys.executable)} -m vectorindex_cli completion bash | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode in (0, 2), done.stderr) == (True, "")  # 0: it was faster than the reader


def test_signs_that_a_terminal_does_not_know_are_shown_as_escapes() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    entry._spell_what_can_not_be_shown(out)
    print("größe-中", file=out, flush=True)
    assert raw.getvalue() == b"gr\\xf6\\xdfe-\\u4e2d\n"


@pytest.mark.parametrize("form", FORMS)
def test_documents_hold_ascii_only_and_so_pass_every_terminal(form: str) -> None:
    told = dump({"id": "größe-中\u202e\x1b[2J"}, form)
    assert told.isascii()
    assert told.isprintable() or form == "json"
    assert yaml.safe_load(told) == {"id": "größe-中\u202e\x1b[2J"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_need_a_terminal_or_the_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert entry._wants_colours("auto", Terminal())
    assert not entry._wants_colours("auto", io.StringIO())
    assert entry._wants_colours("always", io.StringIO())
    assert not entry._wants_colours("never", Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not entry._wants_colours("auto", Terminal())


def show(out: io.StringIO, *texts: str) -> str:
    screen = Screen(out, colours=False)
    for text in texts:
        screen.show_progress(Shown(text.split()[0], text))
    screen.say("done")
    return out.getvalue()


def test_progress_is_one_changing_line_on_a_terminal_and_a_line_for_each_step_elsewhere() -> None:
    texts = ("half 1", "half 1", "half 2", "whole")
    assert show(Terminal(), *texts) == "half 1\r\x1b[Khalf 2\r\x1b[Kwhole\r\x1b[Kdone\n"
    assert show(io.StringIO(), *texts) == "half 1\nwhole\ndone\n"


def test_progress_never_wraps_and_steers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert show(Terminal(), "\x1b[2J" + "x" * 30) == "?[2J" + "x" * 15 + "\r\x1b[Kdone\n"


def test_programs_get_one_document_and_progress_goes_elsewhere() -> None:
    out, progress = io.StringIO(), io.StringIO()
    screen = Screen(out, progress, colours=False, form="json")
    screen.show_progress(Shown("half", "half"))
    screen.say("for people")
    screen.answer({"name": "docs"}, "for people")
    assert (json.loads(out.getvalue()), progress.getvalue()) == ({"name": "docs"}, "half\n")


def test_each_verb_has_its_method_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in verbs_of(make_parser()):
        assert verb == "completion" or callable(getattr(Command, verb))
        with pytest.raises(SystemExit) as ended:
            entry.main([verb, "--help"])
        assert ended.value.code == 0
        assert "usage: kubectl vectorindex" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        entry.main(["--version"])
    assert capsys.readouterr().out == f"kubectl vectorindex {version('vectorindex-cli')}\n"


def verbs_of(parser: argparse.ArgumentParser) -> list[str]:
    (verbs,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return list(verbs.choices)


def commands_in(page: Path) -> Iterator[list[str]]:
    """Return the arguments of each call in the code blocks of a page, as a shell splits them."""
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text().replace("\\\n", " "), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            for call in re.findall(r"(?:^|[\s$(])(?:kubectl )?vectorindex (?!-)(.*)", line):
                filled = re.sub(r"\$\([^()]*\)", "what-another-command-prints", call)
                words = shlex.split(re.split(r"[|;)>]|&&", filled)[0], comments=True)
                if words and words[0].islower() and "PLAN" not in words:
                    yield words


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_each_command_line_in_the_documentation_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    parser, known = make_parser(), verbs_of(make_parser())
    called = set()
    for page in PAGES:
        for words in commands_in(page):
            if "vectorindex" in page.read_text() and words[0] in known:
                try:
                    called.add(parser.parse_args(words).verb)
                except SystemExit:
                    pytest.fail(f"{page.name}: {words}: {capsys.readouterr().err}")
    assert called == set(known), "each verb is shown in a command that works"
