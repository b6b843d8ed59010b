"""The command line: `python3 -m cluster COMMAND`. Results go to stdout, progress and errors to stderr."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import binaries, images, lifecycle, packages, tools
from .errors import ClusterError
from .lifecycle import DEFAULT_CONTROL_PLANE, DEFAULT_NODE, Cluster
from .progress import say

Command = Callable[[argparse.Namespace], None]


def up(options: argparse.Namespace) -> None:
    """Start a node and print the path of its kubeconfig."""

    def start(cluster: Cluster) -> None:
        lifecycle.up_node(cluster, network_policy=not options.no_network_policy, foreground=options.foreground)

    _start(Cluster(options.name), start, foreground=options.foreground)


def control_plane(options: argparse.Namespace) -> None:
    """Start etcd and the API server alone and print the path of the kubeconfig; needs no root."""

    def start(cluster: Cluster) -> None:
        lifecycle.up_control_plane(cluster, controllers=options.with_controllers, foreground=options.foreground)

    _start(Cluster(options.name), start, foreground=options.foreground)


def _start(cluster: Cluster, start: Callable[[Cluster], None], *, foreground: bool) -> None:
    if foreground:
        lifecycle.tie_to_parent()
    started = time.monotonic()
    start(cluster)
    say(f"cluster {cluster.name} is ready after {time.monotonic() - started:.1f} s")
    print(cluster.kubeconfig, flush=True)
    if foreground:
        lifecycle.stay_until_ended(cluster)


def down(options: argparse.Namespace) -> None:
    """End a cluster and remove all that it left; harmless when none runs."""
    ran = lifecycle.down(Cluster(options.name))
    say(f"cluster {options.name} ended" if ran else f"no cluster {options.name} ran")


def status(options: argparse.Namespace) -> None:
    """Print the state of a cluster, or of all that run, as JSON; exit 1 if the named one does not run."""
    if options.name is None:
        print(json.dumps([lifecycle.describe(cluster) for cluster in lifecycle.running_clusters()], indent=1))
        return
    told = lifecycle.describe(Cluster(options.name))
    print(json.dumps(told, indent=1))
    if not told["running"]:
        sys.exit(1)


def kubeconfig(options: argparse.Namespace) -> None:
    """Print the path of a running cluster's kubeconfig."""
    print(_running(options.name).kubeconfig)


def load_image(options: argparse.Namespace) -> None:
    """Put a built image into a running node, unless it is there."""
    cluster = _running(options.name)
    plan, pid = cluster.plan, cluster.pid
    if pid is None or plan is None or plan.slot is None:
        raise ClusterError(f"cluster {cluster.name} is only a control plane and runs no images")
    started = time.monotonic()
    loaded = images.load_image(options.image, pid, binaries.ensure())
    say(f"loaded {options.image} in {time.monotonic() - started:.1f} s" if loaded else f"{options.image} was there already")


def build(_options: argparse.Namespace) -> None:
    """Build and fetch the programs that are missing and print their folder."""
    print(binaries.ensure())


def bin_dir(_options: argparse.Namespace) -> None:
    """Print the folder of the programs: kubectl, helm, ctr and the rest."""
    print(binaries.bin_dir())


def build_image(options: argparse.Namespace) -> None:
    """Build an image unless it is cached and print its full name."""
    arguments = dict(_pair(argument) for argument in options.build_arg)
    print(images.build_image(options.image, options.context, options.file or options.context / "Dockerfile", arguments))


def fetch_tools(_options: argparse.Namespace) -> None:
    """Fetch helm and kubectl, for any cluster, without building anything; print their folder."""
    print(tools.fetch_tools())


def fetch_promtool(_options: argparse.Namespace) -> None:
    """Fetch promtool, which checks rules and metrics; print its path."""
    print(tools.fetch_promtool())


def fetch_monitoring(_options: argparse.Namespace) -> None:
    """Fetch Prometheus and Alertmanager; print the folder of each, a line for each."""
    for package in (tools.PROMETHEUS, tools.ALERTMANAGER):
        print(tools.fetch_programs(package))


def system_packages(options: argparse.Namespace) -> None:
    """Say which system packages are missing, or install them; exit 1 if some are missing."""
    if options.install:
        installed = packages.install()
        say(f"installed {' '.join(installed)}" if installed else "all system packages are there")
    elif absent := packages.missing_packages():
        raise ClusterError(packages.missing_sentence(absent))


def _running(name: str) -> Cluster:
    cluster = Cluster(name)
    if cluster.pid is None:
        raise ClusterError(f"no cluster {name} runs; start it with: python3 -m cluster up --name {name}")
    return cluster


def _pair(argument: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    if not equals:
        raise ClusterError(f"a build argument is written KEY=VALUE, got {argument!r}")
    return key, value


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python3 -m cluster", description="A real Kubernetes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, function: Command, default_name: str | None = None) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.set_defaults(function=function)
        if default_name:
            command.add_argument("--name", default=default_name, help="which cluster (default: %(default)s)")
        return command

    node = add("up", up, DEFAULT_NODE)
    node.add_argument("--no-network-policy", action="store_true", help="do not enforce NetworkPolicy")
    add("down", down, DEFAULT_NODE)
    add("status", status).add_argument("--name", help="which cluster (default: all that run)")
    add("kubeconfig", kubeconfig, DEFAULT_NODE)
    add("load-image", load_image, DEFAULT_NODE).add_argument("image", help="as build-image prints it")
    plane = add("control-plane", control_plane, DEFAULT_CONTROL_PLANE)
    plane.add_argument("--with-controllers", action="store_true", help="also the controller manager")
    for command in (node, plane):
        command.add_argument("--foreground", action="store_true", help="stay, and end the cluster when this process or its parent ends")
    add("build", build)
    add("bin-dir", bin_dir)
    image = add("build-image", build_image)
    image.add_argument("image", help="name without registry and tag")
    image.add_argument("context", type=Path, help="folder whose files the Dockerfile copies")
    image.add_argument("-f", "--file", type=Path, help="default: CONTEXT/Dockerfile")
    image.add_argument("--build-arg", action="append", default=[], metavar="KEY=VALUE")
    add("tools", fetch_tools)
    add("promtool", fetch_promtool)
    add("monitoring", fetch_monitoring)
    add("packages", system_packages).add_argument("--install", action="store_true", help="install what is missing, with apt-get as root")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run one command; a failure is a sentence, not a traceback."""
    options = build_parser().parse_args(arguments)
    try:
        options.function(options)
    except ClusterError as error:
        sys.exit(f"error: {error}")
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"error: {error}; is the disk full, or {os.environ.get('XDG_CACHE_HOME', '~/.cache')} not writable?")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
