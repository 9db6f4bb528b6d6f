"""Plans for TPUs that are not there, by the TPU compiler."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.planning import SETTINGS
from vit_jax.__main__ import main
from vit_jax.experiments.planning.compiling import Compiled, compile_step

pytest.importorskip("libtpu")
SMALL = ("--config.model.depth=2", "--config.model.image_size=64")


def planned(file: Path, config: str, *flags: str) -> dict[str, Any]:
    """What `plan` writes."""
    assert main(["plan", f"--config=configs/{config}", *flags, f"--output={file}"]) == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_a_step_that_is_too_large_and_what_makes_it_fit(tmp_path: Path) -> None:
    flags = ("--topology=v5e:1x1", "--config.data.batch_size=32768", *SMALL)
    found = planned(tmp_path / "plan.json", "pretrain.py:s16,imagenet", *flags)
    own, *others = found["tried"]
    assert not own["fits"] and own["result"]["available"] == 15.75 * 2**30
    assert others[-1]["fits"] and others[-1]["result"]["peak"] <= 15.75 * 2**30
    assert found["remedies"] and found["ranked"] > len(others)


LARGE = {
    "H": ("pretrain.py:h14,jft", "--topology=v5e:16x16"),
    "L": ("pretrain.py:l16,imagenet21k", "--topology=v5e:4x4"),
    "G": (
        *("scaling_vit.py:G14,imagenet21k", "--topology=v5p:4x4x4"),
        *("--config.data.batch_size=4096", "--config.mesh.fsdp=64"),
    ),
}


@pytest.mark.pods
@pytest.mark.parametrize("name", LARGE)
def test_the_largest_models_fit_as_they_are_or_as_the_plan_says(name: str, tmp_path: Path) -> None:
    found = planned(tmp_path / "plan.json", *LARGE[name])
    assert found["tried"][-1]["fits"]
    assert found["tried"][0]["fits"] == (name == "G")
    last = found["tried"][-1]
    memory = last["candidate"]["memory"]
    assert sum(memory.values()) == pytest.approx(last["result"]["peak"], rel=0.15)


@pytest.mark.pods
def test_a_search_finds_what_fits(tmp_path: Path) -> None:
    flags = ("--topology=v5e:4x4", "--search")
    found = planned(tmp_path / "plan.json", "pretrain.py:l16,imagenet21k", *flags)
    assert found["tried"][-1]["fits"] and len(found["tried"]) <= 5
    assert found["skipped"] == found["ranked"] - len(found["tried"]) > 0


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.pods] * (n != "S-none")) for n in SETTINGS]
)
def test_estimates_are_within_15_percent(name: str) -> None:
    program = SETTINGS[name].program()
    compiled = compile_step(program)
    assert isinstance(compiled, Compiled)
    assert SETTINGS[name].estimate(program).peak == pytest.approx(compiled.peak, rel=0.15)
