"""Everything that packaging knows about pcamjax; pyproject.toml holds only the settings of tools."""

from pathlib import Path

from setuptools import find_packages, setup

# A lower bound is the oldest release line that requirements/ was tested with, not the oldest that might work.
CORE = [
    "absl-py>=2.1",
    "array_record>=0.8.1; platform_system != 'Windows'",  # TFDS reads it without TensorFlow
    "flax>=0.12.8",
    "grain>=0.2.13",
    "h5py>=3.14",
    "jax>=0.10",
    "jaxtyping>=0.3.3",
    "jinja2>=3.1",
    "matplotlib>=3.10",
    "ml-collections>=1.1",
    "numpy>=2.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.12",
    "pillow>=11",
    "pooch>=1.8",
    "scikit-learn>=1.6",
    "scipy>=1.14",
    "skops>=0.16",  # the first that does not take a forest's trees for harmless
    "tensorboardX>=2.6.5",
    "tensorflow-datasets>=4.9.10",
    "tqdm>=4.66",
]

# TensorFlow's CPU build is a third of the size and exists for x86-64 Linux and Windows alone.
TENSORFLOW = [
    "tensorflow-cpu>=2.21; platform_machine == 'x86_64' or platform_machine == 'AMD64'",
    "tensorflow>=2.21; platform_machine != 'x86_64' and platform_machine != 'AMD64'",
]

setup(
    name="pcamjax",
    version="0.1.0",
    description="Train, evaluate and explain networks that find metastases in PatchCamelyon patches, in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="pcamjax contributors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["pcamjax", "pcamjax.*"]),
    package_data={"pcamjax.ops.compiled": ["*.cc", "*.h"], "pcamjax.report": ["templates/*"]},
    install_requires=CORE,
    extras_require={
        "cuda12": ["jax[cuda12]>=0.10"],
        "cuda13": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        # TFDS imports importlib_resources when it prepares data, and does not say so.
        "tfds": [*TENSORFLOW, "importlib_resources>=6"],
        # Energy and CO2 of runs, where config.carbon.country names a country.
        "carbon": ["codecarbon>=3.2"],
        # The peers that `experiments.benchmark` measures beside us; any of them may be missing.
        "benchmark": [*TENSORFLOW, "keras>=3.12", "torch>=2.9"],
        "test": [
            "codecarbon>=3.2",
            *TENSORFLOW,
            "beartype>=0.22",
            "hypothesis>=6.140",
            "keras>=3.12",
            "pytest>=9",
            "pytest-xdist>=3.8",
            "ruff>=0.14",
        ],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
