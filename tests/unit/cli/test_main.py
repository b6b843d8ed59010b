"""Arguments, the screen, and what happens before the first request."""

import io
from pathlib import Path

import pytest

from vectorindex_cli import __main__ as entry
from vectorindex_cli.commands import Screen


def test_common_options_may_stand_on_both_sides_of_the_verb() -> None:
    parser = entry._make_parser()
    before = parser.parse_args(["-n", "search", "--color", "never", "status", "docs"])
    after = parser.parse_args(["status", "docs", "-n", "search", "--color", "never"])
    assert (before.namespace, before.color) == (after.namespace, after.color) == ("search", "never")


@pytest.mark.parametrize("arguments", [[], ["status"], ["approve", "docs"], ["mend", "docs"], ["status", "docs", "-o", "xml"]])
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


def test_progress_is_one_changing_line_on_a_terminal_and_a_line_for_each_change_elsewhere() -> None:
    shown = []
    for terminal in (True, False):
        out = io.StringIO()
        screen = Screen(out, terminal=terminal, colours=False)
        for text in ("half", "half", "whole"):
            screen.show_progress(text)
        screen.say("done")
        shown.append(out.getvalue())
    assert shown == ["half\r\x1b[Kwhole\r\x1b[Kdone\n", "half\nwhole\ndone\n"]
