"""What may be typed: verbs, their arguments and options, and the texts of `--help`. Loads nothing that takes long."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from typing import Final

from vectorindex_cli.completion import SHELLS
from vectorindex_cli.documents import FORMS
from vectorindex_cli.version import VERSION

MOST_SAMPLES: Final = 10
"""Ids of rows that the status holds of each kind and replica."""
MOST_HITS: Final = 1000
_MOST_SECONDS: Final = 7 * 86400

_VERBS: Final = {
    "status": ("what state it is in", "Exit code: 0 consistent, 1 not consistent, 2 unknown or an error."),
    "diff": (
        "which rows differ, by replica and kind",
        "Rows are missing (live in Postgres, not indexed), ghost (indexed, not live), changed or duplicate. This is what "
        "the replicas found at their last check; `validate --wait` lets them look again. "
        "Exit code: 0 no row differs, 1 some do or wait, 2 unknown or an error.",
    ),
    "validate": ("let each replica check at once", "Exit code: 0; with --wait that of `status` after the checks."),
    "rebuild": (
        "let each replica build its index anew, while the former serves",
        "Exit code: 0; with --wait that of `status` after the rebuilds.",
    ),
    "plan": ("the changes that wait for approval", "Exit code: 0 none waits, 1 some wait, 2 an error."),
    "approve": ("let held plans pass", "An approval counts for once. If one of the plans is not held, none is approved."),
    "suspend": ("stop every change of the indexed content", "Checks and searches go on."),
    "resume": ("let the content follow Postgres again", ""),
    "search": (
        "find the rows nearest to a vector",
        "One replica is asked, through the API server as `kubectl port-forward` does: it takes the right to forward ports to pods, and no "
        "NetworkPolicy is in the way. Exit code: 0 the answer is proven, 1 it is not, 2 an error.",
    ),
    "report": (
        "gather what somebody who helps needs to know",
        "Objects, events, logs, and what the replicas say of themselves, in one archive. No Secret is read; values of environment "
        "variables, annotations of others and what looks like a credential are left out. What you may not read is named in it.",
    ),
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    called = os.path.basename(sys.argv[0])  # noqa: PTH119 - a name, not a path
    prog = "vectorindex" if called == "vectorindex" else "kubectl vectorindex"
    common = _make_common()
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Look at VectorIndexes, and ask something of them.",
        epilog=f"`{prog} VERB --help` tells more of a verb.",
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=f"{prog} {VERSION}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (text, more) in _VERBS.items():
        description = f"{text[0].upper()}{text[1:]}. {more}".strip()
        verb = verbs.add_parser(name, help=text, description=description, parents=[common])
        verb.add_argument("name", metavar="NAME", help="name of the VectorIndex")
        verb.add_argument("-o", "--output", choices=FORMS, help="one document for programs instead of text")
        _add_options(name, verb)
    script = verbs.add_parser("completion", help="the script that completes what is typed", description=_COMPLETION, parents=[common])
    script.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    return parser


_COMPLETION: Final = (
    "Print the script with which a shell completes `vectorindex`. `kubectl vectorindex` needs none: kubectl's own completion asks "
    "`kubectl_complete-vectorindex`, which is installed beside this command."
)


def _add_options(name: str, verb: argparse.ArgumentParser) -> None:
    match name:
        case "diff":
            text = f"ids shown of each kind and replica, at most {MOST_SAMPLES} (all that are known)"
            verb.add_argument("--limit", type=_parse_count(MOST_SAMPLES), default=MOST_SAMPLES, metavar="IDS", help=text)
        case "validate" | "rebuild":
            verb.add_argument("--wait", action="store_true", help="until each replica has; the exit code is then that of `status`")
            verb.add_argument("--timeout", type=_parse_seconds, default=600, metavar="SECONDS", help="how long to wait at most (600)")
        case "approve":
            verb.add_argument("plans", nargs="+", metavar="PLAN", help="ids of held plans, as `plan` shows them")
        case "search":
            text = "JSON list of numbers, or NumPy file of one vector; - reads it from standard input"
            verb.add_argument("--vector", required=True, metavar="FILE", help=text)
            verb.add_argument("-k", type=_parse_count(MOST_HITS), default=10, metavar="ROWS", help="how many rows (10)")
            verb.add_argument("--replica", metavar="POD", help="the replica to ask (the first that serves)")
        case "report":
            text = "archive to write; a folder where the name does not end in .tar.gz (vectorindex-NAMESPACE-NAME-TIME.tar.gz)"
            verb.add_argument("--to", metavar="PATH", help=text)
            verb.add_argument("--log-lines", type=_parse_count(100_000), default=2000, metavar="LINES", help="of each log, the last (2000)")
            verb.add_argument("--operator-namespace", metavar="NAMESPACE", help="where the operator runs (it is looked for)")


def _parse_count(most: int) -> Callable[[str], int]:
    """Return what parses a number from 1 to a limit."""

    def parse(text: str) -> int:
        if text.isdecimal() and 1 <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {most}, got {text!r}")

    return parse


def _parse_seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= _MOST_SECONDS:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number of seconds from 0 to {_MOST_SECONDS}, got {text!r}")


def _make_common() -> argparse.ArgumentParser:
    """Return the options that may stand before and after the verb; what is absent leaves no trace, or one place would undo the other."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("-n", "--namespace", help="namespace of the VectorIndex (that of the context)")
    common.add_argument("--context", help="context of the kubeconfig (the current one)")
    common.add_argument("--kubeconfig", metavar="FILE", help="kubeconfig (KUBECONFIG, else ~/.kube/config)")
    common.add_argument("--color", choices=("auto", "always", "never"), help="colours; auto, the default, on terminals only")
    return common
