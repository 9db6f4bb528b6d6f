"""What mypy and pyright tell a user of the package, from outside the repository."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"

# Each line is wrong, and each in another way.
WRONG = """
import vit_jax

vit_jax.create_modle("ViT-B/16")
vit_jax.create_model("ViT-B/16", image_siz=224)
vit_jax.create_model("ViT-B/16", depth="12")
vit_jax.load_model(weights="B_16.npz", image_siz=224)
vit_jax.load_model(weights="B_16.npz", dtype="float16")
vit_jax.preprocess([3], vit_jax.create_model("ViT-B/16"))
vit_jax.train("configs/quickstart.py", "runs/digits", stepz=3)
"""
RIGHT = """
import vit_jax

model = vit_jax.create_model("ViT-B/16", image_size=(384, 512), num_classes=0, seed=1)
features = model(vit_jax.preprocess(["photo.jpg"], model))
print(features.shape, vit_jax.list_models()[0].lower(), vit_jax.__version__)
result = vit_jax.train("configs/quickstart.py", "runs/digits")
print(result.weights.name, result.step + 1, result.scores)
"""


def run(command: Sequence[str], directory: Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=directory, capture_output=True, text=True
    ).stdout


def mypy(directory: Path) -> dict[str, list[int]]:
    """Lines with errors, by file."""
    files = sorted(file.name for file in directory.glob("*.py"))
    output = run(["mypy", "--strict", *files], directory)
    found = re.findall(r"^(\w+\.py):(\d+): error: ", output, re.MULTILINE)
    return {name: sorted({int(line) for file, line in found if file == name}) for name in files}


def pyright(directory: Path) -> dict[str, list[int]]:
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (directory / "pyrightconfig.json").write_text(json.dumps(settings))
    output = json.loads(run(["pyright", "--outputjson", "--pythonpath", sys.executable], directory))
    found = [
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in output["generalDiagnostics"]
        if each["severity"] == "error"
    ]
    files = sorted(file.name for file in directory.glob("*.py"))
    return {name: sorted({line for file, line in found if file == name}) for name in files}


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_checker_passes_the_readme_and_finds_mistakes(
    checker: Callable[[Path], dict[str, list[int]]], tmp_path: Path
) -> None:
    # It fetches what it consists of from npm's registry when it is first called.
    if checker is pyright and "pyright" not in run(["pyright", "--version"], tmp_path):
        pytest.skip("pyright is not installed, or finds no Node.js or no registry")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    (tmp_path / "readme.py").write_text("\n".join(blocks))
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    wrong = [n for n, line in enumerate(WRONG.splitlines(), 1) if line.startswith("vit_jax.")]
    assert checker(tmp_path) == {"readme.py": [], "right.py": [], "wrong.py": wrong}
