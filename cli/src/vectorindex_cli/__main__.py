"""The command line: reads arguments, calls one verb, turns errors into sentences."""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, TextIO

from vectorindex_cli.arguments import make_parser
from vectorindex_cli.completion import SCRIPTS
from vectorindex_cli.errors import CliError

_ERROR: Final = 2
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    _spell_what_can_not_be_shown(sys.stdout, sys.stderr)
    try:
        return _run(make_parser().parse_args(arguments))
    except BrokenPipeError:  # `| head`: nobody reads on
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - so that the flush at exit does not fail too
    except Exception:  # a defect; but Python's own exit code would be 1, which here says that rows differ
        traceback.print_exc()
    return _ERROR


def _run(options: argparse.Namespace) -> int:
    if options.verb == "completion":
        print(SCRIPTS[options.shell], end="", flush=True)
        return 0

    from vectorindex_cli.access import connect  # noqa: PLC0415 - takes a second to load: help comes without it
    from vectorindex_cli.commands import Command, Screen  # noqa: PLC0415
    from vectorindex_cli.render import printable  # noqa: PLC0415

    colours = _wants_colours(getattr(options, "color", "auto"), sys.stdout)
    screen = Screen(sys.stdout, sys.stderr if options.output else sys.stdout, colours=colours, form=options.output)
    try:
        indexes = connect(*(getattr(options, name, None) for name in ("kubeconfig", "context", "namespace")))
        code: int = getattr(Command(indexes, options, screen), options.verb)()
    except CliError as error:
        screen.end_progress()
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return _ERROR
    except KeyboardInterrupt:
        screen.end_progress()
        return _INTERRUPTED
    return code


def _spell_what_can_not_be_shown(*streams: TextIO) -> None:
    """Let a terminal that knows few signs show the others as escapes: ids of rows may be any text."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _wants_colours(color: str, out: TextIO) -> bool:
    if color != "auto":
        return color == "always"
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


if __name__ == "__main__":
    sys.exit(main())
