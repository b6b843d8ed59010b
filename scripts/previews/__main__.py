"""Draw the dashboards into docs/images as a real Prometheus fills them: on the demo's cluster, where things happen for some minutes.

`make previews` runs it; the cluster stays up. With `--from FILE` it draws what was recorded before, without any cluster.
"""

import argparse
import secrets
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from examples.wordnet import demo
from examples.wordnet.steps import monitoring, story, world
from examples.wordnet.steps.report import StepError, say, warn
from examples.wordnet.steps.world import World
from scripts.dashboards.boards import BOARDS, load

from . import draw, happen, record

ROOT: Final = Path(__file__).resolve().parents[2]
IMAGES: Final = ROOT / "docs" / "images"
OVERVIEW: Final = ("State", "Drift and repair")  # of Consistency
STEP_SECONDS: Final = 5
SCRAPE: Final = "2s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make things happen, record and draw, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.previews", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--name", default="demo", help="name of the local cluster (default: %(default)s)")
    parser.add_argument("--from", dest="file", type=Path, help="draw this recording instead of making one")
    parser.add_argument("--keep", type=Path, help="keep the recording in this file")
    options = parser.parse_args(arguments)
    if options.file:
        draw_all(record.read(options.file))
        return 0
    try:
        scene = demo.prepare(options.name)
    except StepError as error:
        warn(f"\nno pictures: {error}")
        return 1
    failed = None
    try:
        started = set_up(scene)
        try:
            happen.make_everything_happen(scene)
        except StepError as error:
            failed = error
        ask: Any = partial(monitoring.ask, scene, monitoring.PROMETHEUS)
        recording = record.record(ask, record.Span(started, time.time(), STEP_SECONDS))
    except StepError as error:
        failed = error
    else:
        if options.keep:
            record.write(recording, options.keep)  # also of a run that failed: it shows how
        if not failed:
            draw_all(recording)
            return 0
    finally:
        scene.close()
    for title, text in world.describe_failure(scene):
        warn(f"\n-- {title}\n{text.rstrip()}")
    warn(f"\nno pictures: {failed}")
    return 1


def set_up(scene: World) -> float:
    """Install everything and serve two indexes; return since when there is something to see."""
    token = secrets.token_hex(16)
    world.set_up_namespaces(scene)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": happen.WEBHOOK}, "stringData": {"token": token}}
    scene.kubernetes.apply(secret, namespace=world.SYSTEM)
    story.set_up(scene, *happen.CHART_VALUES)
    values = (*happen.CHART_VALUES, *happen.RULE_VALUES)
    monitoring.install(scene, monitoring.Settings(values, SCRAPE, happen.ALERTMANAGER, token))
    started = time.time()
    happen.serve_two(scene)
    return started


def draw_all(recording: record.Recording) -> None:
    """Write a picture of each dashboard, and one that fits on a page of what matters most."""
    pictures = {board.name: load(board) for board in BOARDS}
    pictures["overview"] = draw.pick(pictures["consistency"], OVERVIEW)
    for name, dashboard in pictures.items():
        file = IMAGES / f"dashboard-{name}.png"
        draw.write(dashboard, recording, file)
        say(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
