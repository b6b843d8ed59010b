"""Writes the outputs in docs/cli.md anew, from a real run: `python -m scripts.cli_page`, as root on Linux, takes a few minutes.

A node of its own is started with the operator and the example's index, and brought into each state: bits of a replica's memory are flipped,
the password is changed, rows are deleted. What the API server says of the index then is kept in tests/unit/cli/documents, where a
test compares what is shown of it with the page. The node ends with the script.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from examples.wordnet.load import MODEL
from examples.wordnet.steps import members, story, world
from examples.wordnet.steps.kubernetes import Kubernetes
from examples.wordnet.steps.report import detail, headline, wait_until
from examples.wordnet.steps.world import INDEX, SEARCH, World
from tests.support.cluster import node_cluster
from vectorindex_cli import render
from vectorindex_cli.access import connect
from vectorindex_cli.render import Painter
from vectorindex_cli.resource import VectorIndex, parse_index
from vectorindex_indexer.config import Metric
from vectorindex_indexer.index import encode

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cli.md"
DOCUMENTS = ROOT / "tests" / "unit" / "cli" / "documents"
CLUSTER = "manual"
FLIPPED = 3
GONE = 4012
PLAIN = Painter(False)


class Run:
    """One run: what was shown by each command, and the documents behind it."""

    def __init__(self, scene: World, folder: Path) -> None:
        self.scene = scene
        self.folder = folder
        self.shown: dict[str, str] = {}  # by the name that stands before its block in the page
        self.read_at: dict[str, str] = {}

    def call(self, *arguments: str, codes: Sequence[int] = (0,)) -> str:
        """Run the command line as people do, and return its output."""
        command = [sys.executable, "-m", "vectorindex_cli", *arguments, "-n", SEARCH]
        result = subprocess.run(
            command, cwd=self.folder, env=self.scene.kubernetes.environment, capture_output=True, text=True, timeout=300, check=False
        )
        if result.returncode not in codes:
            raise AssertionError(f"{arguments}: exit code {result.returncode}, {result.stdout}{result.stderr}")
        return result.stdout.rstrip()

    def show(self, name: str, *arguments: str, codes: Sequence[int] = (0,)) -> None:
        """Run a command and keep its output for the page."""
        self.shown[name] = self.call(*arguments, codes=codes)
        detail(f"{name}: {len(self.shown[name].splitlines())} lines")

    def keep(self, state: str, *views: tuple[str, Callable[[VectorIndex, datetime], str]]) -> None:
        """Keep the resource as it is now, and what is shown of it."""
        kubeconfig = self.scene.kubernetes.kubeconfig
        document, now = connect(str(kubeconfig) if kubeconfig else None, None, SEARCH).read(INDEX)
        document["metadata"].pop("managedFields", None)
        (DOCUMENTS / f"{state}.json").write_text(json.dumps(document, indent=2) + "\n")
        self.read_at[state] = now.isoformat()
        index = parse_index(document)
        for verb, view in (("status", lambda index, now: render.render_status(index, now, PLAIN)), *views):
            self.shown[f"{state} {verb}"] = view(index, now)
        (DOCUMENTS / f"{state}.txt").write_text(self.shown[f"{state} status"] + "\n")
        detail(f"{state}: kept")


def main() -> None:
    """Make the run and write page and documents."""
    images = world.build_images()
    with node_cluster(CLUSTER) as running, tempfile.TemporaryDirectory() as folder:
        world.load_images(CLUSTER, images)
        scene = World(CLUSTER, Kubernetes(running.program("kubectl").parent, running.kubeconfig), images)
        try:
            story.set_up(scene, "clusterWide=true")
            run = Run(scene, Path(folder))
            story.serve(scene)
            play(run)
        finally:
            scene.close()
    (DOCUMENTS / "read-at.json").write_text(json.dumps(run.read_at, indent=2) + "\n")
    write_page(run.shown)


def play(run: Run) -> None:
    """Bring the index into each state."""
    scene = run.scene
    diff = ("diff", lambda index, now: render.render_diff(index, now, 10, PLAIN))

    headline(1, "Bits flip in the memory of a replica, and healing.mode is Observe")
    patch(scene, {"healing": {"mode": "Observe"}})
    wait_until_known(scene, '"mode":"Observe"')
    flip_bits(scene, f"{INDEX}-index-0")
    run.call("validate", INDEX, "--wait", codes=(1,))
    run.keep("drifting", diff)
    patch(scene, {"healing": {"mode": "Auto"}})
    wait_until_known(scene, '"mode":"Auto"')
    run.call("validate", INDEX, "--wait", codes=(0, 1))
    world.wait_for_condition(scene, INDEX, "Consistent", 60)
    story.wait_for_all(scene, INDEX, replicas=2)
    run.call("validate", INDEX, "--wait")

    headline(2, "All is well")
    run.keep("healthy", diff)
    vector = scene.upstream.vector_of(int(scene.upstream.live().ids[4000]))
    (run.folder / "query.json").write_text(json.dumps([round(float(number), 6) for number in vector]))
    run.show("search", "search", INDEX, "--vector", "query.json", "-k", "5")
    run.show("rebuild", "rebuild", INDEX, "--wait")
    run.show("report", "report", INDEX)

    headline(3, "Postgres refuses the password")
    scene.upstream.set_reader_password("another")
    wait_for_reason(scene, "AuthenticationFailed")
    run.keep("unknown", diff)
    scene.upstream.set_reader_password(scene.reader_password)
    world.wait_for_condition(scene, INDEX, "Consistent", 120)

    headline(4, "Somebody deletes many rows")
    ids = scene.upstream.live().ids[:GONE].tolist()
    scene.upstream.execute("DELETE FROM embeddings WHERE model_name = %s AND entity_id = ANY(%s)", MODEL, ids)
    wait_for_reason(scene, "ChangeHeld")
    wait_until("both to hold", lambda: held_by(scene) == 2, 60)
    run.keep("held", ("plan", lambda index, now: render.render_plans(index, now, PLAIN)))


def patch(scene: World, spec: dict[str, Any]) -> None:
    """Change the spec of the index."""
    scene.kubernetes.kubectl("patch", "vidx", INDEX, f"--namespace={SEARCH}", "--type=merge", f"--patch={json.dumps({'spec': spec})}")


def wait_until_known(scene: World, words: str) -> None:
    """Wait until every replica has read a live file in which these words stand."""

    def known() -> bool:
        (text,) = scene.kubernetes.get("configmap", f"{INDEX}-index", f"--namespace={SEARCH}")["data"].values()
        hashes = {members.status(scene, pod)["identity"]["liveHash"] for pod in members.names(scene, INDEX)}
        status = scene.kubernetes.get("vidx", INDEX, f"--namespace={SEARCH}")
        seen = status["status"]["observedGeneration"] == status["metadata"]["generation"]
        return words in text and seen and len(hashes) == 1

    wait_until(f"all to know of {words}", known, 60)


def wait_for_reason(scene: World, reason: str) -> None:
    """Wait until `Consistent` has this reason."""
    wait_until(reason, lambda: world.conditions(scene, INDEX)["Consistent"]["reason"] == reason, 120)


def held_by(scene: World) -> int:
    """Return how many replicas hold a plan."""
    plans = scene.kubernetes.get("vidx", INDEX, f"--namespace={SEARCH}")["status"].get("heldPlans", [])
    return sum(int(plan["replicas"]) for plan in plans)


def flip_bits(scene: World, pod: str) -> None:
    """Flip a bit in every copy of some vectors that a replica holds in its memory, as a bad module of memory does."""
    uid = scene.kubernetes.get("pod", pod, f"--namespace={SEARCH}")["metadata"]["uid"]
    live = scene.upstream.live()
    places = np.linspace(1000, 6000, FLIPPED).astype(int)
    codes = [encode(live.vectors[place : place + 1], Metric.COSINE).tobytes() for place in places]
    flipped = sum(_flip(process, codes) for process in _find_processes(uid))
    detail(f"{flipped} copies of {FLIPPED} vectors flipped, of {[int(live.ids[place]) for place in places]}")
    if flipped < FLIPPED:
        raise AssertionError(f"expected to find {FLIPPED} vectors in the memory of {pod}")


def _find_processes(pod_uid: str) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if pod_uid.encode() in (process / "environ").read_bytes():
                found.append(process)
        except OSError:  # it has ended
            continue
    return found


def _flip(process: Path, patterns: Sequence[bytes]) -> int:
    flipped = 0
    spans = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw", (process / "maps").read_text(), re.MULTILINE)
    with (process / "mem").open("r+b", buffering=0) as memory:
        for start, end in ((int(low, 16), int(high, 16)) for low, high in spans):
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except OSError:  # not to be read, such as [vvar]
                continue
            for pattern in patterns:
                for match in re.finditer(re.escape(pattern), content):
                    memory.seek(start + match.start() + 6)
                    memory.write(bytes([pattern[6] ^ 0x40]))  # the upper half of the second number
                    flipped += 1
    return flipped


# --- the page


def write_page(shown: dict[str, str]) -> None:
    """Put each output into the block behind its name, below the command that stands there."""
    text = PAGE.read_text()
    for name, output in shown.items():
        block = re.compile(rf"(<!-- run: {re.escape(name)} -->\n\n```\n\$ [^\n]*\n).*?(^```$)", re.DOTALL | re.MULTILINE)
        text, count = block.subn(lambda match, output=output: f"{match[1]}{output}\n{match[2]}", text)
        if not count:
            detail(f"the page has no block for {name}")
    PAGE.write_text(text)
    detail(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    started = time.monotonic()
    main()
    detail(f"{time.monotonic() - started:.0f} s")
