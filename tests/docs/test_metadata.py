"""Versions and bounds that stand in more than one file agree."""

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT
from vit_jax import __version__

SETUP = (ROOT / "setup.py").read_text()


def test_the_version_is_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert citation["version"] == newest[1] == __version__


def test_the_oldest_versions_are_the_bounds_of_setup_py() -> None:
    pins = (ROOT / "constraints-oldest.txt").read_text()
    for package in ("jax", "flax", "optax"):
        bound = re.search(rf'"{package}>=([\d.]+)"', SETUP)
        pin = re.search(rf"^{package}==([\d.]+)$", pins, re.MULTILINE)
        assert bound is not None and pin is not None
        assert pin[1].removesuffix(".0") == bound[1].removesuffix(".0")


def test_every_python_that_is_named_is_tested() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    named = re.findall(r'"Programming Language :: Python :: ([\d.]+)"', SETUP)
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == named
    assert f'python_requires=">={named[0]}"' in SETUP


def test_workflows_run_what_exists() -> None:
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        text = file.read_text()
        for constraints in re.findall(r"--constraint (\S+)", text):
            assert (ROOT / constraints).exists()
        for test in re.findall(r"\btests/\S+", text):
            assert (ROOT / test).exists()


def test_the_source_distribution_holds_what_the_pages_use(tmp_path: Path) -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("not a git checkout")
    for name in files.stdout.splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, tmp_path / name)
    command = [sys.executable, "setup.py", "--quiet", "sdist", "--formats=tar"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (archive,) = (tmp_path / "dist").glob("*.tar")
    with tarfile.open(archive) as opened:
        held = {name.partition("/")[2] for name in opened.getnames()}
    parts = ("docs/", "examples/", "tests/", "configs/", "benchmarks/", "vit_jax/")
    wanted = {name for name in files.stdout.splitlines() if name.startswith(parts)}
    wanted |= {"constraints.txt", "constraints-oldest.txt", "CHANGELOG.md", "LICENSE", "Makefile"}
    assert wanted - held == set()


def test_the_installed_package_holds_its_data_files(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "--quiet", "build_py", f"--build-lib={tmp_path / 'lib'}"]
    for name in ("setup.py", "README.md", "configs", "vit_jax"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, tmp_path / name)
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    files = [path for path in (ROOT / "vit_jax").rglob("*") if path.is_file()]
    wanted = {path.relative_to(ROOT) for path in files if "__pycache__" not in path.parts}
    assert (
        wanted - {path.relative_to(tmp_path / "lib") for path in tmp_path.rglob("lib/**/*")}
        == set()
    )


def test_what_a_newcomer_s_first_file_needs_is_a_dependency() -> None:
    required = SETUP.partition("install_requires")[2].partition("extras_require")[0]
    assert '"safetensors' in required
