"""Show on a real Kubernetes, in seven steps that assert what they claim, that replicas equal Postgres, whatever happens to them.

`make demo` runs it on a cluster of its own, which stays up; `make demo CLUSTER=external` on the cluster of the current KUBECONFIG.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from cluster import packages, requirements

from .steps import story, world
from .steps.kubernetes import ROOT
from .steps.report import StepError, detail, headline, say, warn
from .steps.story import Done
from .steps.world import World

HOW_ELSE = """\
Either of these works without it:
  make try                    the same on this machine without Kubernetes and without root
  make demo CLUSTER=external  on the cluster of the current KUBECONFIG, with images it can pull"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.wordnet.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--name", default="demo", help="name of the local cluster (default: %(default)s)")
    options = parser.parse_args(arguments)
    cluster = None if os.environ.get("CLUSTER") == "external" else options.name
    if cluster is not None and (reason := requirements.missing()):
        warn(f"demo: {reason}.\n{HOW_ELSE}")
        return 2
    started = time.monotonic()
    try:
        scene = prepare(cluster)
    except StepError as error:
        warn(f"\ndemo failed: {error}")
        return 1
    try:
        run_steps(scene)
    except StepError as error:
        for title, text in world.describe_failure(scene):
            warn(f"\n-- {title}\n{text.rstrip()}")
        warn(f"\ndemo failed: {error}")
        return 1
    finally:
        scene.close()
    say(f"\nAll seven steps hold, after {time.monotonic() - started:.0f} s.")
    say(describe_next(cluster))
    return 0


def prepare(cluster: str | None) -> World:
    """Bring up the cluster, after installing the system packages it needs where this process may."""
    headline(1, "A Kubernetes, Postgres with real rows, the operator, and one VectorIndex")
    if cluster is not None and packages.missing_packages() and packages.can_install():
        subprocess.run([sys.executable, "-m", "cluster", "packages", "--install"], cwd=ROOT, check=False)
    return world.open_world(cluster)


def run_steps(scene: World) -> None:
    """Run the seven steps; raise StepError at the first that does not hold."""
    done = Done()
    story.set_up(scene, "clusterWide=true")  # so that you can try it in a namespace of your own, too
    story.serve(scene)
    headline(2, "Searches, through the Service, compared with exact search over the live rows")
    story.find_neighbours(scene)
    story.change_and_damage(scene, done)
    headline(5, "Defect 2: a model key that the table does not have")
    story.refuse_wrong_key(scene)
    headline(6, "Defect 3: connections and statements that break in the middle of a check")
    story.survive_broken_connections(scene, done)
    headline(7, "What the metrics say of all this")
    story.compare_metrics(scene, done)
    for name, value in done.figures.items():
        detail(f"{name}: {value:.1f}")


def describe_next(cluster: str | None) -> str:
    """Return what to try on the cluster that stays."""
    lines = [
        "The cluster stays up. To look around:",
        '  eval "$(make -s env)"',
        "  kubectl -n search get vidx -o wide",
        "  kubectl -n search describe vidx docs",
        "  kubectl explain vidx.spec.source",
        "  kubectl -n search scale vidx docs --replicas=3",
        '  kubectl -n search annotate --overwrite vidx docs vectorindex.dev/validate-requested-at="$(date -u +%FT%TZ)"',
    ]
    if cluster is not None:
        lines.append("To end it: make down")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
