"""How many processors and how much memory a process may use."""

import multiprocessing
import os

import pytest
from processes import run_script
from threadpoolctl import threadpool_limits
from user_code import torch_threads

from sk_mlp._compute.intra_op import available_threads
from sk_mlp._compute.machine import available_cores, count_cores, free_memory


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class TestHowMany:
    """A process has as many threads as it may use processors, whoever limits them."""

    def test_here(self):
        assert 1 <= available_threads() <= available_cores() <= (os.cpu_count() or 1)

    def test_pytorchs_own_number_and_threadpoolctls_limit(self):
        with torch_threads(1):
            assert available_threads() == 1
        with torch_threads(2), threadpool_limits(1):
            assert available_threads() == 1

    def test_joblibs_limit(self, monkeypatch):
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
        assert available_cores() == 1

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone binds processes to processors")
    @pytest.mark.slow
    def test_processors_that_the_process_is_bound_to(self):
        run_script("bound_to_one_processor.py")

    @pytest.mark.parametrize(
        ("files", "expected"),
        [
            ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "max 100000\n"}, 64),
            ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "200000 100000\n"}, 2),
            ({"proc/self/cgroup": "0::/a/b\n", "cgroup/a/cpu.max": "150000 100000\n"}, 2),
            ({"proc/self/cgroup": "0::/a\n", "cgroup/a/cpu.max": "50000 100000\n"}, 1),
            (
                {
                    "proc/self/cgroup": "3:cpu,cpuacct:/docker/x\n",
                    "cgroup/cpu/cpu.cfs_quota_us": "300000\n",
                    "cgroup/cpu/cpu.cfs_period_us": "100000\n",
                },
                3,
            ),
            (
                {
                    "proc/self/cgroup": "3:cpu,cpuacct:/\n",
                    "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                    "cgroup/cpu/cpu.cfs_period_us": "100000\n",
                },
                64,
            ),
            ({}, 64),
        ],
    )
    def test_quotas_of_containers(self, files, expected, tmp_path, monkeypatch):
        for name, text in files.items():
            write(tmp_path / name, text)
        monkeypatch.setattr("joblib.cpu_count", lambda: 64)
        assert count_cores(tmp_path / "proc", tmp_path / "cgroup") == expected

    @pytest.mark.slow
    def test_a_process_of_a_pool_has_one(self):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(available_cores) == 1


class TestFreeMemory:
    """Files as Linux writes them, on a machine with 4,000 KiB free."""

    @pytest.fixture
    def machine(self, tmp_path):
        write(tmp_path / "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
        return lambda path, text: write(tmp_path / path, text), lambda: free_memory(
            tmp_path / "proc", tmp_path / "cgroup"
        )

    def test_without_a_limit(self, machine):
        write, free = machine
        assert free() == 4000 * 1024
        write("proc/self/cgroup", "0::/\n")
        write("cgroup/memory.max", "max\n")
        write("cgroup/memory.current", "500\n")
        assert free() == 4000 * 1024

    def test_version_2(self, machine):
        """A group's own limit, and one of the group around it, whose cache can be given up."""
        write, free = machine
        write("proc/self/cgroup", "0::/a/b\n")
        write("cgroup/a/b/memory.max", "900000\n")
        write("cgroup/a/b/memory.current", "100000\n")
        assert free() == 800_000
        write("cgroup/a/memory.max", "950000\n")
        write("cgroup/a/memory.current", "600000\n")
        assert free() == 350_000
        write("cgroup/a/memory.stat", "anon 5\ninactive_file 200000\n")
        assert free() == 550_000

    def test_version_1(self, machine):
        """In a container the path is the host's, and the limit lies at the root."""
        write, free = machine
        write("proc/self/cgroup", "5:cpu:/docker/x\n4:memory,hugetlb:/docker/x\n")
        write("cgroup/memory/memory.limit_in_bytes", "700000\n")
        write("cgroup/memory/memory.usage_in_bytes", "100000\n")
        assert free() == 600_000

    def test_nothing_to_be_read(self, tmp_path):
        assert free_memory(tmp_path, tmp_path) == 2**33

    def test_here(self):
        assert free_memory() > 2**20
