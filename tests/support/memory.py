"""Damages the memory of a running process as a bad module of the machine would, without a call or a file. Needs root on the node."""

import os
import re
from pathlib import Path
from typing import Final

_WINDOW: Final = 64 * 1024 * 1024


def find_processes(pod_uid: str, word: str) -> list[int]:
    """Return the processes of a pod on this machine whose command line holds this word."""
    marks = (pod_uid, pod_uid.replace("-", "_"))
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            groups, command = (folder / "cgroup").read_text(), (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if any(mark in groups for mark in marks) and word.encode() in command:
            found.append(int(folder.name))
    return sorted(found)


def overwrite(process: int, old: bytes, new: bytes) -> int:
    """Put other bytes of the same length in each place of a process's memory that holds the old ones; return in how many."""
    assert len(old) == len(new)
    count = 0
    with Path(f"/proc/{process}/mem").open("r+b", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None:
                continue
            start, end = (int(part, 16) for part in match.groups())
            for place in _find(memory.fileno(), start, end, old):
                memory.seek(place)
                memory.write(new)
                count += 1
    return count


def _find(descriptor: int, start: int, end: int, wanted: bytes) -> list[int]:
    """Return where the bytes lie in a range of memory; what can't be read is left out."""
    places = []
    for begin in range(start, end, _WINDOW):
        size = min(_WINDOW + len(wanted) - 1, end - begin)
        try:
            content = _read(descriptor, begin, size)
        except OSError:
            continue
        at = content.find(wanted)
        while at >= 0:
            places.append(begin + at)
            at = content.find(wanted, at + 1)
    return sorted(set(places))


def _read(descriptor: int, begin: int, size: int) -> bytes:
    parts = []
    while size > 0:
        part = os.pread(descriptor, size, begin)
        if not part:
            break
        parts.append(part)
        begin, size = begin + len(part), size - len(part)
    return b"".join(parts)
