"""What could stand in place of the word that is being typed: asked as kubectl asks, and in a real bash."""

import argparse
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from vectorindex_cli.arguments import make_parser
from vectorindex_cli.completion import SCRIPTS, complete

ROOT = Path(__file__).resolve().parents[3]
PLAN = "fedcba9876543210"


def look(kind: str, values: argparse.Namespace) -> Iterable[str]:
    """Return names as a cluster would that has one index in the namespace search."""
    if kind in ("namespace", "operator_namespace"):
        return ("search", "shop")
    plans = [PLAN] if getattr(values, "name", "") == "docs" else []
    known = {"context": ["demo"], "name": ["docs"], "plans": plans, "replica": ["docs-index-0"]}
    return known[kind] if kind == "context" or getattr(values, "namespace", "search") == "search" else ()


@pytest.mark.parametrize(
    ("typed", "words", "directive"),
    [
        ("re", ["rebuild", "resume", "report"], 4),
        ("-n search st", ["status"], 4),
        ("status ", ["docs"], 4),
        ("status -n shop ", [], 4),
        ("status docs ", [], 4),
        ("status docs --out", ["--output"], 4),
        ("status docs -o ", ["json", "yaml"], 4),
        ("status docs --output=y", ["--output=yaml"], 4),
        ("status docs -n s", ["search", "shop"], 4),
        ("--context ", ["demo"], 4),
        ("--color=n", ["--color=never"], 4),
        ("approve docs ", [PLAN], 4),
        ("approve docs 1 ", [PLAN], 4),
        ("approve other ", [], 4),
        ("search docs --vector ", [], 0),
        ("search docs --replica ", ["docs-index-0"], 4),
        ("search docs -k ", [], 4),
        ("report docs --to ", [], 0),
        ("completion ", ["bash", "zsh", "fish"], 4),
        ("mend ", [], 4),
        ("validate docs --wait --timeout 5 --wa", ["--wait"], 4),
    ],
)
def test_the_last_word_is_completed_by_what_stands_before_it(typed: str, words: list[str], directive: int) -> None:
    found = complete(typed.split(" "), make_parser(), look)
    assert ([word for word, _ in found.words], found.directive) == (words, directive)


def test_an_answer_is_as_kubectl_reads_it() -> None:
    lines = complete(["stat"], make_parser(), look).render().splitlines()
    assert lines == ["status\twhat state it is in", ":4"]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Make the executables that `pip install` makes."""
    for name, entry in tomllib.loads((ROOT / "cli" / "pyproject.toml").read_text())["project"]["scripts"].items():
        module, _, function = entry.partition(":")
        program = tmp_path / name
        program.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        program.chmod(0o755)
    return tmp_path


def in_shell(shell: list[str], script: str, programs: Path) -> list[str]:
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "KUBECONFIG": str(programs / "none")}
    result = subprocess.run([*shell, script], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == ""
    return result.stdout.split()


BASH = """
source <(vectorindex completion bash)
COMP_WORDS=(vectorindex {}) COMP_CWORD={}
_vectorindex 2>/dev/null  # compopt is for a line that is being edited
echo "${{COMPREPLY[@]}}"
"""


def test_bash_offers_the_candidates(programs: Path) -> None:
    shell = ["bash", "--norc", "-c"]
    assert in_shell(shell, BASH.format("va", 1), programs) == ["validate"]
    assert in_shell(shell, BASH.format("status docs --output ''", 4), programs) == ["json", "yaml"]
    assert in_shell(shell, BASH.format("status ''", 2), programs) == []  # no kubeconfig, no names, no noise


def test_kubectl_asks_an_executable_of_this_name(programs: Path) -> None:
    assert in_shell(["bash", "--norc", "-c"], "kubectl_complete-vectorindex sta", programs)[-1] == ":4"


def test_each_shell_has_its_script() -> None:
    assert all("kubectl_complete-vectorindex" in script for script in SCRIPTS.values())
