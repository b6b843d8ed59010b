"""The thread count: what the cgroup's CPU quota allows, in every thread that searches."""

import threading
from pathlib import Path

import faiss
import numpy as np
import pytest

from tests.support.views import build_view
from vectorindex_indexer.config import IndexSpec
from vectorindex_indexer.index import threads as module
from vectorindex_indexer.index import threads_from_cgroup
from vectorindex_indexer.index.threads import count_threads, faiss_threads


def test_faiss_gets_its_thread_count_in_every_searching_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenMP keeps the count for each thread: one set at start would not reach the threads that search."""
    monkeypatch.setattr(module, "threads_from_cgroup", lambda: 7)
    vectors = np.eye(10, 16, dtype=np.float32)
    view = build_view(IndexSpec(16), np.arange(10), vectors)
    seen: list[int] = []

    def search() -> None:
        view.search(vectors, 1)
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    faiss.omp_set_num_threads(threads_from_cgroup())
    assert seen == [7]


def test_a_build_gives_the_threads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "threads_from_cgroup", lambda: 3)
    with pytest.raises(InterruptedError), faiss_threads(5):
        assert faiss.omp_get_max_threads() == 5
        raise InterruptedError
    assert faiss.omp_get_max_threads() == 3
    faiss.omp_set_num_threads(threads_from_cgroup())


@pytest.mark.parametrize(
    ("files", "membership", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 2),
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 8),
        ({"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 3),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "5:cpu:/kube/pod\n0::/\n", 3),
        ({"cpu,cpuacct/x/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/x\n", 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n", 8),
        ({"memory/cpu.cfs_quota_us": "100000\n", "memory/cpu.cfs_period_us": "100000\n"}, "4:memory:/\n", 8),
        ({"cpu.max": "nonsense"}, "0::/\n", 8),
        ({}, "", 8),
        ({"cpu.max": "6400000 100000\n"}, "0::/\n", 8),
    ],
)
def test_threads_follow_the_cpu_quota(tmp_path: Path, files: dict[str, str], membership: str, expected: int) -> None:
    for name, content in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "membership").write_text(membership)
    assert count_threads(tmp_path / "cgroup", tmp_path / "membership", 8) == expected
