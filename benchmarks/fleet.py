"""Measure the operator with many VectorIndexes made at once: `python -m benchmarks.fleet --count 1000`, or `make bench-fleet COUNT=1000`.

A real API server, its controllers and the real operator run; no node, so pods exist and never start. The peer is a bare client that only
writes the same objects to the same API server. Exits with 1 when a bar is missed.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.support.cluster import ROOT, RunningCluster, control_plane
from tests.support.many import AT_ONCE, Api, create_indexes, path_of
from tests.support.operator_process import OperatorProcess, make_account, wait_for
from tests.support.vector_index import make_manifest
from vectorindex_operator import names
from vectorindex_operator.api import Json

TIME_BAR: Final = 3.0
REQUESTS_BAR: Final = 12.0
MEMORY_BAR: Final = 250.0  # MiB
QUIET: Final = 15.0  # seconds without a write after which all is done
OWN: Final = tuple(kind for kind in names.CHILDREN if kind != "Pod")


def main() -> int:
    """Run the bench and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="how many VectorIndexes are made at once")
    options = parser.parse_args()
    with control_plane(controllers=True) as cluster, tempfile.TemporaryDirectory() as folder:
        cluster.kubectl("apply", "--server-side", "-f", ROOT / "crds" / "vectorindexes.yaml")
        wait_for("the kind is served", lambda: cluster.try_kubectl("get", "vidx").returncode == 0)
        facts = asyncio.run(measure(cluster, Path(folder), options.count))
    print(json.dumps(facts, indent=1))
    missed = [
        f"{name}: {facts[name]} is more than {bar}"
        for name, bar in (("time ratio", TIME_BAR), ("requests per object", REQUESTS_BAR), ("memory MiB", MEMORY_BAR))
        if facts[name] > bar
    ]
    print("\n".join(missed) or "all bars kept")
    return 1 if missed else 0


async def measure(cluster: RunningCluster, folder: Path, count: int) -> dict[str, Any]:
    """Let the operator and then the bare client make the objects of so many indexes."""
    operator = OperatorProcess(make_account(cluster, folder), folder / "operator.log")
    operator.start()
    try:
        async with Api(cluster.kubeconfig) as bare:
            for namespace in ("fleet", "peer"):
                cluster.kubectl("create", "namespace", namespace)
            say(f"making {count} VectorIndexes")
            started = time.monotonic()
            await create_indexes(bare, "fleet", count)
            await wait_until_reconciled(bare, count)
            seconds = time.monotonic() - started
            say(f"all are reconciled after {seconds:.1f} s; waiting until the operator rests")
            requests = await wait_for_rest(operator)
            memory, peak = read_memory(operator.pid)
            again = await measure_restart(operator, count)
            operator.stop()
            say("the bare client writes the same objects")
            templates = {kind: await bare.read_list(kind, "fleet") for kind in OWN}
            statuses = {one["metadata"]["name"]: one["status"] for one in await bare.read_list(names.KIND, "fleet")}
            await delete_all(bare, "fleet")
            peer = await run_peer(bare, count, templates, statuses)
    except BaseException:
        operator.kill()
        print(operator.log.read_text()[-3000:], file=sys.stderr)
        raise
    return {
        "indexes": count,
        "operator seconds": round(seconds, 1),
        "bare client seconds": round(peer, 1),
        "time ratio": round(seconds / peer, 2),
        "requests per object": round(sum(requests.values()) / count, 2),
        "requests": requests,
        "memory MiB": memory,
        "peak memory MiB": peak,
        "restart seconds until all are seen": round(again, 1),
    }


async def wait_until_reconciled(bare: Api, count: int) -> None:
    """Wait until every index has been visited in its newest form and has all its objects."""
    while True:
        indexes = await bare.read_list(names.KIND, "fleet")
        visited = sum(one.get("status", {}).get("observedGeneration") == one["metadata"]["generation"] for one in indexes)
        if visited == count:
            break
        await asyncio.sleep(0.5)  # a list of all is work for the API server too
    expected = {"StatefulSet": 1, "PodDisruptionBudget": 1, "NetworkPolicy": 1, "Service": 2}
    for kind, each in expected.items():
        found = len(await bare.read_list(kind, "fleet"))
        if found != each * count:
            raise RuntimeError(f"{found} of kind {kind}, expected {each * count}")


async def wait_for_rest(operator: OperatorProcess) -> dict[str, float]:
    """Return the requests of the operator's own client by method and kind of answer, once it writes nothing any more."""
    before, since = -1.0, time.monotonic()
    while time.monotonic() - since < QUIET:
        writes = await asyncio.to_thread(operator.writes)
        if writes != before:
            before, since = writes, time.monotonic()
        await asyncio.sleep(1)
    methods = ("GET", "POST", "PATCH", "DELETE")
    return {method: operator.metric("vectorindex_operator_api_requests_total", method=method) or 0.0 for method in methods}


async def measure_restart(operator: OperatorProcess, count: int) -> float:
    """Return the seconds from the start of a new process until it has looked at every index."""
    operator.stop()
    started = time.monotonic()
    operator.start()
    await asyncio.to_thread(
        wait_for, "every index is seen", lambda: (operator.metric("vectorindex_operator_condition", type="Ready") or 0) >= count, 300
    )
    return time.monotonic() - started


async def delete_all(bare: Api, namespace: str) -> None:
    """Delete the indexes and wait until the garbage collector has taken all that was theirs."""
    await bare.send("DELETE", path_of(names.KIND, namespace))
    for kind in (names.KIND, *names.CHILDREN):
        while [one for one in await bare.read_list(kind, namespace) if one["metadata"]["name"].startswith("docs-")]:  # noqa: ASYNC110
            await asyncio.sleep(1)


async def run_peer(bare: Api, count: int, templates: dict[str, list[Json]], statuses: dict[str, Json]) -> float:
    """Return the seconds that a client needs which knows what to write and only writes it."""
    by_owner: dict[str, list[Json]] = {}
    for kind, objects in templates.items():
        for one in objects:
            labels = one["metadata"].get("labels") or {}
            if names.INDEX_LABEL in labels:
                by_owner.setdefault(labels[names.INDEX_LABEL], []).append(clean(kind, one))
    limit = asyncio.Semaphore(AT_ONCE)

    async def write(number: int) -> None:
        async with limit:
            made = await bare.create(make_manifest(f"docs-{number:04}", "peer"))
            for one in by_owner[made["metadata"]["name"]]:
                owner = {**one["metadata"]["ownerReferences"][0], "uid": made["metadata"]["uid"]}
                await bare.create({**one, "metadata": {**one["metadata"], "ownerReferences": [owner]}})
            await bare.set_status(names.KIND, "peer", made["metadata"]["name"], statuses[made["metadata"]["name"]])

    started = time.monotonic()
    await asyncio.gather(*(write(number) for number in range(count)))
    return time.monotonic() - started


def clean(kind: str, live: Json) -> Json:
    """Return what a client would have sent to get this object in the namespace `peer`."""
    meta = {field: live["metadata"][field] for field in ("name", "labels", "annotations", "ownerReferences")}
    body = {field: value for field, value in live.items() if field not in ("metadata", "status")}
    if kind == "Service":
        addresses = () if body["spec"].get("clusterIP") == "None" else ("clusterIP", "clusterIPs")
        body["spec"] = {field: value for field, value in body["spec"].items() if field not in addresses}
    return {**body, "apiVersion": names.API_VERSIONS[kind], "kind": kind, "metadata": {**meta, "namespace": "peer"}}


def read_memory(pid: int) -> tuple[float, float]:
    """Return resident memory of a process now and at its peak, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    now, peak = (int(found[1]) / 1024 for found in (re.search(rf"{name}:\s+(\d+) kB", text) for name in ("VmRSS", "VmHWM")) if found)
    return round(now, 1), round(peak, 1)


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
