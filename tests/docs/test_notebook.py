"""The notebook runs from start to end, on pictures that it draws and small weights."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.small_models import random_params
from vit_jax.models.config import ModelConfig
from vit_jax.weights.files import write_weights

nbclient = pytest.importorskip("nbclient", reason="the extra `test` has it")
nbformat = pytest.importorskip("nbformat")

# The first file of an installed package may be compiled, and its kernel starts.
PARAMETERS = """WEIGHTS = "weights.npz"
FOLDER = None
WORKDIR = "run"
EPOCHS = 2"""


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    model = ModelConfig("ViT-mu/8", image_size=32, num_classes=5).completed()
    names = ("ant", "bee", "cat", "<i>dog</i>", "elk")
    write_weights(tmp_path / "weights.npz", random_params(model), model, class_names=names)
    notebook = nbformat.read(ROOT / "examples/photographs.ipynb", as_version=4)
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    parameters.source = PARAMETERS
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()

    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    rich = [output.data for output in shown if "data" in output]
    cards = [data["text/html"] for data in rich if "ViT-mu/8" in data.get("text/html", "")]
    assert cards and "&lt;i&gt;dog" in cards[0] and "Array" not in cards[0]
    assert sum("image/png" in data for data in rich) == 2
    assert any("test/top1" in data["text/plain"] for data in rich)
    assert any("run/report.html" in data.get("text/html", "") for data in rich)
    assert "test/top1" in (tmp_path / "run/report.html").read_text()


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(ROOT / "examples/photographs.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    # What replaces no jax of a hosted notebook; a test must not install anything.
    (install,) = [cell for cell in code if "%pip" in cell.source]
    assert "jax=={jax.__version__}" in install.source
    assert "skip-execution" in install.metadata["tags"]
