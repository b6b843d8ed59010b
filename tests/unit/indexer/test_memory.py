"""Whether a build will fit: limits from cgroup folders of both versions, and the sentence when it won't."""

from pathlib import Path

import pytest

from vectorindex_indexer.config import Hnsw, IndexSpec, IndexType, Ivf, Quantization
from vectorindex_indexer.errors import LoadRefusedError
from vectorindex_indexer.memory import MIB, Room, check_memory, estimate_build_bytes, read_room
from vectorindex_indexer.names import ProofReason


def write_cgroup(folder: Path, limit: str, used: int, cached: int = 0, *, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    prefix = names[2]
    (folder / "memory.stat").write_text(f"anon 5\n{prefix}inactive_file {cached - cached // 3}\n{prefix}active_file {cached // 3}\n")


def write_membership(folder: Path, text: str) -> Path:
    path = folder / "membership"
    path.write_text(text)
    return path


def test_version_2_in_a_container_reads_the_mount_itself(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    write_cgroup(mount, str(512 * MIB), 100 * MIB)

    assert read_room(mount, write_membership(tmp_path, "0::/\n")) == Room(512 * MIB, 100 * MIB)


@pytest.mark.parametrize(
    ("own", "parent", "expected"), [("max", "900", 900), ("300", "900", 300), ("300", "max", 300), ("900", "300", 300)]
)
def test_the_tightest_of_own_folder_and_those_above_counts(tmp_path: Path, own: str, parent: str, expected: int) -> None:
    mount = tmp_path / "mount"
    write_cgroup(mount / "kubepods" / "pod1" / "box", own, 10)
    write_cgroup(mount / "kubepods" / "pod1", parent, 20)

    room = read_room(mount, write_membership(tmp_path, "0::/kubepods/pod1/box\n"))

    assert room is not None
    assert room.limit == expected


def test_what_is_left_decides_and_not_the_limit(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    write_cgroup(mount / "pod" / "box", "1000", 100)
    write_cgroup(mount / "pod", "1200", 1100)

    assert read_room(mount, write_membership(tmp_path, "0::/pod/box\n")) == Room(1200, 1100)


def test_version_1_reads_its_own_controller_and_takes_a_huge_number_for_none(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    write_cgroup(mount / "memory" / "docker" / "abc", "700", 70, 30, version=1)
    write_cgroup(mount / "memory", "9223372036854771712", 7000, version=1)
    membership = write_membership(tmp_path, "5:cpu:/docker/abc\n4:memory:/docker/abc\n0::/\n")

    assert read_room(mount, membership) == Room(700, 40)


def test_version_1_inside_a_container_whose_membership_names_the_hosts_folder(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    write_cgroup(mount / "memory", "700", 70, version=1)

    assert read_room(mount, write_membership(tmp_path, "4:memory:/kubepods/burstable/pod1/abc\n")) == Room(700, 70)


def test_cached_files_are_not_counted_as_taken(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    write_cgroup(mount, "1000", 900, cached=600)

    assert read_room(mount, write_membership(tmp_path, "0::/\n")) == Room(1000, 300)


def test_without_a_count_of_what_is_taken_the_process_own_memory_counts(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    write_cgroup(mount, str(2**40), 0)
    (mount / "memory.current").unlink()

    room = read_room(mount, write_membership(tmp_path, "0::/\n"))

    assert room is not None
    assert 10 * MIB < room.used < 2**40


@pytest.mark.parametrize("text", ["", "0::/\n", "nonsense\n"])
def test_without_limits_there_is_no_room_to_judge(tmp_path: Path, text: str) -> None:
    assert read_room(tmp_path / "mount", write_membership(tmp_path, text)) is None
    check_memory(IndexSpec(384), 10**9, 8, None)


def test_too_little_memory_is_told_with_both_figures_and_what_would_do() -> None:
    spec, room = IndexSpec(384, type=IndexType.FLAT), Room(2048 * MIB, 1500 * MIB)

    with pytest.raises(LoadRefusedError) as caught:
        check_memory(spec, 1_000_000, 8, room)

    needed = -(-estimate_build_bytes(spec, 1_000_000, 8) // MIB)
    assert caught.value.reason is ProofReason.MEMORY_TOO_SMALL
    assert caught.value.message == (
        f"an index of 1000000 rows needs about {needed} MiB, the container's limit of 2048 MiB leaves 548 MiB; "
        f"raise pod.resources.limits.memory to at least {needed + 1500}Mi"
    )
    check_memory(spec, 1_000_000, 8, Room((needed + 1500) * MIB, 1500 * MIB))


def test_the_estimate_grows_with_each_thing_that_takes_memory() -> None:
    rows = 1_000_000
    flat = estimate_build_bytes(IndexSpec(384, type=IndexType.FLAT), rows, 8)
    small = estimate_build_bytes(IndexSpec(384, type=IndexType.FLAT, quantization=Quantization.SQ8), rows, 8)
    graph = estimate_build_bytes(IndexSpec(384, type=IndexType.HNSW), rows, 8)

    assert flat > rows * 384 * 4
    assert small < flat / 2
    assert graph - flat > rows * 2 * 32 * 4
    assert estimate_build_bytes(IndexSpec(384, hnsw=Hnsw(m=64)), rows, 8) > graph
    assert estimate_build_bytes(IndexSpec(384, type=IndexType.FLAT), rows, 256) - flat > 4 * 248 * rows
    assert estimate_build_bytes(IndexSpec(384, type=IndexType.FLAT), 2 * rows, 8) > 1.8 * flat
    assert estimate_build_bytes(IndexSpec(768, type=IndexType.FLAT), rows, 8) > 1.8 * flat
    many = IndexSpec(384, type=IndexType.IVFFLAT, ivf=Ivf(nlist=65536), quantization=Quantization.SQ8)
    assert estimate_build_bytes(many, 10 * rows, 8) > 2 * 64 * 65536 * 384 * 4, "the sample that clusters are learnt from"
