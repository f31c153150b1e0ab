"""The memory and the processors that this process may use, within the limits of its container."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import joblib

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_USUAL_MEMORY = 2**33  # in bytes, if the system does not give a number


def available_cores() -> int:
    """Return how many processors this process may use.

    This is the number of processors that it is bound to, limited by joblib's `LOKY_MAX_CPU_COUNT` and the quota of a
    container. For a daemonic process it is one: such a process belongs to a pool, whose other processes use the other
    processors (joblib has the same rule).
    """
    if multiprocessing.current_process().daemon:
        return 1
    bound_to = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return _counted(bound_to, os.environ.get("LOKY_MAX_CPU_COUNT"))


@lru_cache(maxsize=32)  # counting takes half a millisecond
def _counted(_bound_to: frozenset[int] | None, _most: str | None) -> int:
    """Return `count_cores()`, cached for each value of the two settings that may change."""
    return count_cores()


def count_cores(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return how many processors this process may use, from joblib and the files of control groups."""
    return max(1, min([joblib.cpu_count(), *_cores_in_cgroups(proc, cgroups)]))


def _cores_in_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """Yield the quota of each control group of this process, in processors, rounded up."""
    for group, version in _groups(proc, cgroups, "cpu"):
        if version == 2:
            words = " ".join(_lines_of(group / "cpu.max")).split()
            quota, period = (int(word) if word.isdecimal() else None for word in (*words, "", "")[:2])
        else:
            quota, period = (_number_in(group / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        if quota and period:
            yield -(-quota // period)


def free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return the free memory in bytes: that of the machine, or that of the container if it is less."""
    known = [free for free in (_free_on_machine(proc), *_free_in_cgroups(proc, cgroups)) if free is not None]
    return int(max(0, min(known, default=_USUAL_MEMORY)))


def _free_on_machine(proc: Path) -> int | None:
    """Return the available memory in bytes according to Linux; None if it is not known."""
    kilobytes = _numbers_of(proc / "meminfo").get("MemAvailable:")
    return None if kilobytes is None else 1024 * kilobytes


def _free_in_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """Yield the bytes that remain below the limit of each control group of this process."""
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }
    for group, version in _groups(proc, cgroups, "memory"):
        limit, used, cache = names[version]
        bounds = [_number_in(group / file) for file in (limit, used)]
        if bounds[0] is not None and bounds[1] is not None:
            # Cached pages of files that are no longer read count as used, but Linux frees them on demand.
            yield bounds[0] - bounds[1] + _numbers_of(group / "memory.stat").get(cache, 0)


def _groups(proc: Path, cgroups: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folder and the version of each control group of this process, including the groups that contain it.

    A line of the file looks like "0::/a/b" (version 2) or "4:memory:/a/b" (version 1). In a container, the path may be
    that of the host, which does not exist here; then the root belongs to the container itself.
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
    """Return the lines of a file; an empty list if the file does not exist or cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _numbers_of(path: Path) -> dict[str, int]:
    """Return a dictionary from the first word of each line of a file to the number that follows it."""
    words = [line.split() for line in _lines_of(path)]
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}


def _number_in(path: Path) -> int | None:
    """Return the number that a file contains; None if it contains no number, or no limit ("max", -1)."""
    words = " ".join(_lines_of(path)).split()
    return int(words[0]) if len(words) == 1 and words[0].isdecimal() else None
