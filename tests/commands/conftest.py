"""Fixtures of the tests of commands."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the tests of a file find the data sets that one of them prepared."""
    return tmp_path_factory.mktemp("data")
