"""The command line: reads arguments, calls one verb, turns errors into sentences."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from vectorindex_cli.access import connect
from vectorindex_cli.commands import Command, Screen
from vectorindex_cli.errors import CliError

_ERROR: Final = 2
_INTERRUPTED: Final = 130
_VERBS: Final = {
    "status": (Command.status, "what state it is in; exit code 0 consistent, 1 not consistent, 2 unknown or an error"),
    "validate": (Command.validate, "let each replica check at once"),
    "rebuild": (Command.rebuild, "let each replica build its index anew, while the others serve"),
    "plan": (Command.plan, "the changes that wait for approval; exit code 1 if there are any"),
    "approve": (Command.approve, "let held plans pass"),
    "suspend": (Command.suspend, "stop every change of the indexed content"),
    "resume": (Command.resume, "let the content follow Postgres again"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    options = _make_parser().parse_args(arguments)
    color = getattr(options, "color", "auto")
    screen = Screen(sys.stdout, terminal=sys.stdout.isatty(), colours=_wants_colours(color, sys.stdout))
    try:
        indexes = connect(*(getattr(options, name, None) for name in ("kubeconfig", "context", "namespace")))
        verb, _ = _VERBS[options.verb]
        return verb(Command(indexes, options, screen))
    except CliError as error:
        print(f"error: {error}", file=sys.stderr)
        return _ERROR
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `| head`: nobody reads on
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - so that the flush at exit does not fail too
        return _ERROR


def _wants_colours(color: str, out: TextIO) -> bool:
    if color != "auto":
        return color == "always"
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _make_parser() -> argparse.ArgumentParser:
    called = os.path.basename(sys.argv[0])  # noqa: PTH119 - a name, not a path
    prog = "vectorindex" if called == "vectorindex" else "kubectl vectorindex"
    common = _make_common()
    parser = argparse.ArgumentParser(prog=prog, description="Look at VectorIndexes, and ask something of them.", parents=[common])
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (_, text) in _VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common])
        verb.add_argument("name", metavar="NAME", help="name of the VectorIndex")
        if name == "status":
            verb.add_argument("-o", "--output", choices=("json", "yaml"), help="for programs")
        if name in {"validate", "rebuild"}:
            verb.add_argument("--wait", action="store_true", help="until each replica has; the exit code is then that of status")
            verb.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="how long to wait at most (600)")
        if name == "approve":
            verb.add_argument("plans", nargs="+", metavar="PLAN", help="ids of held plans, as `plan` shows them")
    return parser


def _make_common() -> argparse.ArgumentParser:
    """Return the options that may stand before and after the verb; what is absent leaves no trace, or one place would undo the other."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("-n", "--namespace", help="namespace of the VectorIndex (that of the context)")
    common.add_argument("--context", help="context of the kubeconfig (the current one)")
    common.add_argument("--kubeconfig", metavar="FILE", help="kubeconfig (KUBECONFIG, else ~/.kube/config)")
    common.add_argument("--color", choices=("auto", "always", "never"), help="colours; auto, the default, on terminals only")
    return common


if __name__ == "__main__":
    sys.exit(main())
