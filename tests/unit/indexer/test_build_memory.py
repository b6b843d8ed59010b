"""Memory of a build, measured in a process of its own: the index, and little beside it."""

import json
import subprocess
import sys

import pytest

ROWS = 120_000
DIMENSION = 256
MATRIX = ROWS * DIMENSION * 4
CHUNK_ROWS = 8192
CHUNK = CHUNK_ROWS * DIMENSION * 4

SCRIPT = """
import json, resource, sys
import numpy as np
from vectorindex_indexer.config import Hnsw, IndexSpec, IndexType, Ivf, Metric, Quantization
from vectorindex_indexer.index import Builder, encode
from vectorindex_indexer.keys import IdKind

kind, quantization, rows, dimension, chunk = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
metric = Metric.COSINE
spec = IndexSpec(dimension, metric, IndexType(kind), Hnsw(4, 8), Quantization(quantization), Ivf(16, 4))
vectors = np.random.default_rng(0).standard_normal((chunk, dimension)).astype(np.float32)
warm = Builder(spec, IdKind.INTEGER, chunk, 1, 1)  # libraries and their threads take their memory now
warm.train(vectors[:2000])
warm.add(np.arange(1000), encode(vectors[:1000], metric))
warm.finish().search(vectors[:1], 1)
del warm
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak counts from here
def read(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
base = read("VmRSS")
builder = Builder(spec, IdKind.INTEGER, rows, 2, 1)
if builder.needs_training:
    builder.train(vectors)
for start in range(0, rows, chunk):
    size = min(chunk, rows - start)
    codes = encode(vectors[:size], metric)
    codes += np.float32(start * 1e-9)
    builder.add(np.arange(start, start + size), codes)
view = builder.finish()
print(json.dumps({"peak": read("VmHWM") - base, "bytes": view.bytes, "live": view.live_rows}))
"""


def measure(kind: str, quantization: str, rows: int = ROWS) -> dict[str, int]:
    arguments = [sys.executable, "-c", SCRIPT, kind, quantization, str(rows), str(DIMENSION), str(CHUNK_ROWS)]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True)
    measured: dict[str, int] = json.loads(run.stdout)
    assert measured["live"] == rows
    return measured


@pytest.mark.parametrize(("kind", "quantization"), [("Flat", "None"), ("Flat", "SQ8")])
def test_building_flat_takes_the_index_and_two_chunks(kind: str, quantization: str) -> None:
    measured = measure(kind, quantization)
    assert measured["peak"] <= measured["bytes"] + 2 * CHUNK + MATRIX // 50, measured


def test_building_a_graph_takes_the_index_and_what_waits_to_be_added() -> None:
    measured = measure("HNSW", "None", ROWS // 4)
    assert measured["peak"] <= measured["bytes"] + 2 * CHUNK + 64 * 2**20, measured
