"""Locks between processes, and systems that have none."""

import subprocess
import sys
from pathlib import Path

from vit_jax import locks

# As on a system that has neither: the imports fail.
WITHOUT = """
import sys
sys.modules["fcntl"] = sys.modules["resource"] = None
import signal
del signal.SIGHUP, signal.pthread_sigmask
import vit_jax.weights.catalogue.download, vit_jax.runs.directory, vit_jax.data.workers
from vit_jax import locks
with open(sys.argv[1]) as file:
    assert locks.try_lock(file)
    locks.lock(file)
"""


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with open(path, "w") as one, open(path) as other:
        assert locks.try_lock(one)
        assert not locks.try_lock(other)
        one.close()
        assert locks.try_lock(other)


def test_modules_import_where_there_are_no_locks(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
