"""Print what puts kubectl and helm on the PATH of a shell and points them at the demo's cluster: eval "$(make -s env)"."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from .steps.kubernetes import cluster_command
from .steps.report import StepError, say, warn


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the exports and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.wordnet.shell_env", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--name", default="demo", help="name of the local cluster (default: %(default)s)")
    options = parser.parse_args(arguments)
    external = os.environ.get("CLUSTER") == "external"
    try:
        programs = cluster_command("tools" if external else "bin-dir")
        kubeconfig = "" if external else cluster_command("kubeconfig", "--name", options.name)
    except StepError as error:
        warn(f"env: {error}")
        return 1
    say(f'export PATH={shlex.quote(programs)}:"$PATH"')
    if kubeconfig:
        say(f"export KUBECONFIG={shlex.quote(kubeconfig)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
