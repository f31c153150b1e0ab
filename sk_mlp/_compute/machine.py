"""What this process may use of a machine: memory and processors, a container's share of them included."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import joblib

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_USUAL_MEMORY = 2**33  # where the system does not tell


def available_cores() -> int:
    """Return how many processors this process may use.

    Those it is bound to, as far as joblib's `LOKY_MAX_CPU_COUNT` and the quota of a container allow; and one in a
    daemonic process, which belongs to a pool whose other processes have the others (joblib takes it so, too).
    """
    if multiprocessing.current_process().daemon:
        return 1
    bound_to = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return _counted(bound_to, os.environ.get("LOKY_MAX_CPU_COUNT"))


@lru_cache(maxsize=32)  # to count takes half a millisecond
def _counted(_bound_to: frozenset[int] | None, _most: str | None) -> int:
    """Count processors, once for each of what may change."""
    return count_cores()


def count_cores(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return how many processors this process may use, as far as files and joblib tell."""
    return max(1, min([joblib.cpu_count(), *_cores_in_cgroups(proc, cgroups)]))


def _cores_in_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """Yield the quota of each control group that this process is in, in processors, begun ones included."""
    for group, version in _groups(proc, cgroups, "cpu"):
        if version == 2:
            words = " ".join(_lines_of(group / "cpu.max")).split()
            quota, period = (int(word) if word.isdecimal() else None for word in (*words, "", "")[:2])
        else:
            quota, period = (_number_in(group / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        if quota and period:
            yield -(-quota // period)


def free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return the bytes of memory at hand: what the machine has free, or what a container may still take, if less."""
    known = [free for free in (_free_on_machine(proc), *_free_in_cgroups(proc, cgroups)) if free is not None]
    return int(max(0, min(known, default=_USUAL_MEMORY)))


def _free_on_machine(proc: Path) -> int | None:
    """Return the bytes that Linux takes for available."""
    kilobytes = _numbers_of(proc / "meminfo").get("MemAvailable:")
    return None if kilobytes is None else 1024 * kilobytes


def _free_in_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """Yield the bytes below the limit of each control group that this process is in."""
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }
    for group, version in _groups(proc, cgroups, "memory"):
        limit, used, cache = names[version]
        bounds = [_number_in(group / file) for file in (limit, used)]
        if bounds[0] is not None and bounds[1] is not None:
            # Pages of files that nobody reads any more count as used, and are given up on demand.
            yield bounds[0] - bounds[1] + _numbers_of(group / "memory.stat").get(cache, 0)


def _groups(proc: Path, cgroups: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folder of each control group that this process is in, those around it too, and their version.

    A file looks like "0::/a/b" (version 2) or "4:memory:/a/b" (version 1). In a container the path may be that of the
    host, which is not there; then the root is the container's own.
    """
    for line in _lines_of(proc / "self" / "cgroup"):
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, version = cgroups, 2
        elif controller in controllers.split(","):
            root, version = cgroups / controller, 1
        else:
            continue
        path = root / name.lstrip("/")
        for group in (path, *path.parents):
            yield group, version
            if group == root:
                break


def _lines_of(path: Path) -> list[str]:
    """Return the lines of a file; none of one that is not there or not to be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _numbers_of(path: Path) -> dict[str, int]:
    """Return the first number after each first word of a file's lines."""
    words = [line.split() for line in _lines_of(path)]
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}


def _number_in(path: Path) -> int | None:
    """Return the number that is all of a file; None where there is none, or no limit ("max", -1)."""
    words = " ".join(_lines_of(path)).split()
    return int(words[0]) if len(words) == 1 and words[0].isdecimal() else None
