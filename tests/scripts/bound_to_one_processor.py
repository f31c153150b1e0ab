"""Check that a process that is bound to one processor counts one."""

import os

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

from sk_mlp._compute.machine import available_cores  # noqa: E402 (the process is bound first

assert available_cores() == 1
