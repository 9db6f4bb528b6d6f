"""The memory of a preparation of many classes has a bound."""

import re

import pytest

from benchmarks import preparing

# Beside imports: an index is mapped into memory, and a shard is written record by record.
BOUND_MB = 100


@pytest.mark.parametrize("number", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_many_classes_take_little_memory(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    preparing.classes(number, each=1, workers=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"index of {number:,} images of {number:,} classes: ")
    for line in lines:
        found = re.search(r"at most (\d+) MB, of which (\d+) for imports; a worker (\d+) MB", line)
        assert found is not None
        most, imports, worker = map(int, found.groups())
        assert most - imports < BOUND_MB
        assert worker < 2 * imports + BOUND_MB
