from pathlib import Path

import pytest

from benchmarks import room
from benchmarks.__main__ import BENCHES
from benchmarks.room import find_lack

PLENTY = 2**40


def test_plenty_is_enough() -> None:
    assert find_lack(tuple(BENCHES), 1_000_000, PLENTY, PLENTY) is None


@pytest.mark.parametrize(("disk", "memory", "what"), [(2**31, PLENTY, "disk"), (PLENTY, 2**31, "memory")])
def test_too_small_a_machine_is_refused_with_a_sentence(disk: int, memory: int, what: str) -> None:
    lack = find_lack(("load",), 1_000_000, disk, memory)
    assert lack is not None
    assert lack.startswith("1M rows need about")
    assert f"of {what}, 2.0 GiB are free" in lack


def test_every_bench_has_its_need_of_memory() -> None:
    assert set(room.MEMORY_FACTORS) == set(BENCHES)


def test_room_is_asked_of_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    assert room.free_disk(tmp_path / "a" / "b") > 0
    assert room.used_disk(tmp_path / "a" / "b") == 0
    (tmp_path / "file").write_bytes(bytes(10_000))
    assert room.used_disk(tmp_path) >= 10_000
