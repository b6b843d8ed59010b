"""The memory that a build is said to need, against what real builds take in a process of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vectorindex_indexer.config import Hnsw, IndexSpec, IndexType, Ivf, Quantization
from vectorindex_indexer.memory import estimate_build_bytes

ROOT = Path(__file__).resolve().parents[3]
DIMENSION = 256
CHUNK = 50_000  # rows that a load reads at a time

BUILD = """
import json, sys
from pathlib import Path
import numpy as np
from vectorindex_indexer.config import Metric
from vectorindex_indexer.index import Builder, encode
from vectorindex_indexer.keys import IdKind
from vectorindex_indexer.ledger import build_ledger, make_bucket
from tests.integration.indexer.test_memory import CHUNK, DIMENSION, make_spec

def read(name):
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))

def chunk(start, count):
    draw = np.random.default_rng(start)
    received = draw.standard_normal((count, DIMENSION), np.float32).tobytes()
    return encode(np.frombuffer(received, np.float32).reshape(count, DIMENSION), Metric.COSINE)

def build(spec, rows):
    builder = Builder(spec, IdKind.INTEGER, rows, 2, 1)
    if builder.needs_training:
        builder.train(chunk(0, builder.needs_training))
    parts = []
    for start in range(0, rows, CHUNK):
        ids = np.arange(start, min(start + CHUNK, rows))
        codes = builder.add(ids, chunk(start, ids.size))
        parts.append((ids, codes.copy(), np.zeros((ids.size, 2), np.uint64), codes, np.zeros(ids.size, np.uint8)))
    ledger = build_ledger(make_bucket(*(np.concatenate(part) for part in zip(*parts))))
    return builder.finish(), ledger

kind, rows = sys.argv[1], int(sys.argv[2])
build(make_spec(kind), 3000)  # whatever is loaded and allocated once
before = read("VmRSS")
view, ledger = build(make_spec(kind), rows)
assert view.live_rows == ledger.rows == rows and not view.fallback
print(json.dumps(read("VmHWM") - before))
"""


def make_spec(kind: str) -> IndexSpec:
    type_, quantization = kind.split("/")
    hnsw, ivf = Hnsw(m=32, ef_construction=8), Ivf(nlist=64)
    return IndexSpec(DIMENSION, type=IndexType(type_), quantization=Quantization(quantization), hnsw=hnsw, ivf=ivf)


@pytest.mark.parametrize("quantization", list(Quantization))
@pytest.mark.parametrize(("type_", "rows"), [(IndexType.FLAT, 200_000), (IndexType.HNSW, 60_000), (IndexType.IVFFLAT, 200_000)])
def test_a_build_takes_no_more_than_estimated_and_not_much_less(type_: IndexType, rows: int, quantization: Quantization) -> None:
    kind = f"{type_}/{quantization}"
    done = subprocess.run([sys.executable, "-c", BUILD, kind, str(rows)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken = json.loads(done.stdout)

    estimate = estimate_build_bytes(make_spec(kind), rows, 8)

    assert taken <= estimate <= 2 * taken, f"{taken / 2**20:.0f} MiB taken, {estimate / 2**20:.0f} MiB estimated"
