"""Starts that find compiled programs of earlier ones, as real processes."""

import os
import signal
from pathlib import Path

import pytest

from tests.real_processes import by_flags, finish, start_on, wait_for_line
from tests.tiny_run import COMMAND, FLAGS, results, start
from vit_jax.__main__ import main

SHORT = ["--config.total_steps=20", "--config.data.workers=0"]
MISS = "PERSISTENT COMPILATION CACHE MISS for 'jit_step'"


def steps_compiled(cache: Path) -> dict[str, int]:
    """Files of the training step, and when they were written."""
    return {file.name: file.stat().st_mtime_ns for file in cache.glob("jit_step-*")}


@pytest.mark.slow
@pytest.mark.usefixtures("no_compile_cache")
def test_a_restarted_run_does_not_compile_the_step_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # JAX then names what it does not find.
    monkeypatch.setenv("JAX_EXPLAIN_CACHE_MISSES", "1")
    data, run, cache = tmp_path / "data", tmp_path / "run", tmp_path / "cache"
    (expected,) = finish([start(tmp_path / "whole", data, *SHORT)])
    assert MISS not in expected

    flags = [*SHORT, f"--compile_cache={cache}"]
    first = start(run, data, *flags)
    wait_for_line(first, MISS)
    wait_for_line(first, "step 7/20")
    compiled = steps_compiled(cache)
    assert len(compiled) == 1
    first.send_signal(signal.SIGTERM)
    finish([first], code=143)

    (output,) = finish([start(run, data, *flags)])
    assert "resuming after step" in output
    assert MISS not in output and "Error reading" not in output
    assert steps_compiled(cache) == compiled
    assert results(run) == results(tmp_path / "whole")


def test_each_process_must_see_the_same_directory(tmp_path: Path) -> None:
    def launch(count: int, index: int, port: int) -> tuple[list[str], dict[str, str]]:
        flags, variables = by_flags(count, index, port)
        return [*flags, f"--compile_cache={tmp_path / str(index)}"], variables

    outputs = finish(start_on((2, 1), [*COMMAND, f"--workdir={tmp_path / 'run'}"], launch), code=2)
    assert f"--compile_cache={tmp_path / '1'} is another directory here" in outputs[1]
    assert "process 1 cannot continue" in outputs[0]
    assert os.listdir(tmp_path / "0") == []


# Where root cannot write either.
@pytest.mark.parametrize("directory", ["/proc/cache", "/dev/null"])
def test_a_directory_that_cannot_be_written(
    directory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FLAGS, f"--workdir={tmp_path / 'run'}", f"--compile_cache={directory}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot write to --compile_cache={directory} (")
    assert error.count("\n") == 1
