"""The lines of docs/launch.md: scripts and manifests parse, and commands are such as exist."""

import argparse
import importlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vit_jax.config import load_config
from vit_jax.schema import build
from vit_jax.training.config import TrainConfig

PAGE = (Path(__file__).parents[2] / "docs/launch.md").read_text()
PLACES = dict(section.split("\n", 1) for section in PAGE.split("\n## ")[1:])


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands_of(manifest: Any) -> Iterator[list[str]]:
    """Of all containers, wherever they are."""
    if isinstance(manifest, dict):
        if "command" in manifest:
            yield manifest["command"]
        for value in manifest.values():
            yield from commands_of(value)
    elif isinstance(manifest, list):
        for value in manifest:
            yield from commands_of(value)


def commands(text: str) -> list[list[str]]:
    """Arguments of every `python -m vit_jax`, on one line or more, in quotes or not."""
    found = []
    for script in blocks(text, "bash"):
        for line in re.findall(r"python -m vit_jax (.*)", script.replace("\\\n", " ")):
            # In a quoted script that is handed on, the last line ends with the quote.
            line = re.sub(r"'$", "", re.split(" [#>] ", line)[0].rstrip())
            found.append(shlex.split(re.sub(r"\$\w+", "1", line)))
    for manifest in blocks(text, "yaml"):
        for command in commands_of(list(yaml.safe_load_all(manifest))):
            assert command[:3] == ["python", "-m", "vit_jax"]
            found.append(command[3:])
    return found


@pytest.mark.parametrize("place", PLACES)
def test_every_place_has_its_command(place: str) -> None:
    assert commands(PLACES[place])


@pytest.mark.parametrize("words", commands(PAGE), ids=" ".join)
def test_commands_are_such_as_exist(words: list[str]) -> None:
    name, *arguments = words
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    importlib.import_module(f"vit_jax.commands.{name}").add_arguments(parser)
    parsed, overrides = parser.parse_known_args(arguments)
    assert all(override.startswith("--config.") for override in overrides)
    build(TrainConfig, load_config(parsed.config, overrides))
    given = (parsed.coordinator_address, parsed.num_processes, parsed.process_id)
    assert given.count(None) in (0, 3)
    assert not (parsed.distributed and any(given))


@pytest.mark.parametrize("script", blocks(PAGE, "bash"))
def test_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_manifests_name_what_a_slice_needs() -> None:
    (job,) = yaml.safe_load(blocks(PAGE, "yaml")[0])["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"] * spec["completions"]
    assert chips == rows * columns
    assert f"--config.mesh.num_slices={job['replicas']}" in container["command"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_processes_on_gpus_are_of_one_job_that_may_be_asked() -> None:
    jobs, account, role, binding = yaml.safe_load_all(blocks(PAGE, "yaml")[1])
    (job,) = jobs["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    # JAX takes the number of processes from the one Job that the pod is of.
    assert job["replicas"] == 1
    assert spec["parallelism"] == spec["completions"]
    name = account["metadata"]["name"]
    assert spec["template"]["spec"]["serviceAccountName"] == name
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [name]
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # `list_namespaced_pod` and `read_namespaced_job`, in jax/_src/clusters/k8s_cluster.py.
    assert allowed >= {("", "pods", "list"), ("batch", "jobs", "get")}
