"""The executable `kubectl_complete-vectorindex`, which kubectl's own completion runs with the words typed behind the plugin's name."""

import argparse
import contextlib
import io
import sys
from collections.abc import Iterable

from vectorindex_cli.arguments import make_parser
from vectorindex_cli.completion import Candidates, complete
from vectorindex_cli.errors import CliError


def main() -> int:
    """Print the candidates for the last word given. Whatever fails, the shell gets no word of it."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            text = complete(sys.argv[1:], make_parser(), _look).render()
        except Exception:  # a traceback would stand in the middle of what somebody types
            text = Candidates(()).render()
    sys.stdout.write(f"{text}\n")
    return 0


def _look(kind: str, values: argparse.Namespace) -> Iterable[str]:
    """Ask kubeconfig or API server for names; none where neither tells any."""
    from vectorindex_cli import access  # noqa: PLC0415 - takes a second to load: verbs and options come without it

    try:
        return access.look_up(kind, values)
    except CliError:
        return ()
