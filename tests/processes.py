"""Scripts of tests/scripts, which need a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import sk_mlp

SCRIPTS = Path(__file__).parent / "scripts"


def run_script(name, *arguments, variables=None, cwd=None, timeout=None):
    """Run a script with the package under test until it ends well, and return what it has printed."""
    paths = [str(Path(sk_mlp.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **(variables or {})}
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
