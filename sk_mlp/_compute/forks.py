"""Locks of a process, which its forked children do not share."""

from __future__ import annotations

import os
import threading


class ProcessLock:
    """Holds a reentrant `lock` for all threads of a process.

    A forked child gets a new lock: a thread of the parent may have held the old one, and does not exist in the child.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.lock = threading.RLock()
