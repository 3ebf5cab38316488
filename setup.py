"""How PASSL is installed: `pip install -e '.[cpu,quickstart]'`, or `make setup` for everything."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
_VERSION = re.search(r'^__version__ = "([^"]+)"', (HERE / "passl/__init__.py").read_text(), re.M)
if _VERSION is None:
    raise RuntimeError("passl/__init__.py does not define __version__")

REQUIREMENTS = [
    # Below 2.4: paddle 3.3 turns tensors of shape [1] into numbers in a way that 2.4 refuses, so
    # its GradScaler dies at the first overflow.
    "numpy>=1.26,<2.4",
    "PyYAML>=6.0",
    "pillow>=9.5",
    "opencv-python-headless>=4.8",
    "visualdl>=2.5.3",
]

# passl-export to ONNX, and its comparison with the live model.
EXPORT = [
    # Reads what Paddle 3.3 writes; Paddle 2.6 needs paddle2onnx==1.3.1 instead, and 2.1.0 fails
    # to import there.
    "paddle2onnx==2.1.0",
    # The range that paddle2onnx 2.1.0 asks for.
    "onnx>=1.16.1,<=1.17.0",
    # 1.19.0 is the first that runs with numpy 2, and was tried: int8 and float16 leave with it as
    # with 1.32. No upper end: later ones still read the graphs of earlier opsets.
    "onnxruntime>=1.19",
]

# There are wheels for these systems; elsewhere pip would look for a compiler.
_TURBOJPEG = (
    "turbojpeg>=0.0.2; platform_machine == 'x86_64' and python_version < '3.14' "
    "and platform_python_implementation == 'CPython'"
)

EXTRAS = {
    "cpu": [
        "paddlepaddle==3.3.1",
        # Imported by paddle 3.3 at its start, but not named among its requirements; a virtual
        # environment of Python 3.12 or later comes without it.
        "setuptools>=64",
    ],
    "gpu": [
        # The newest GPU wheel on the package index; later ones come from Paddle's own site.
        "paddlepaddle-gpu==2.6.2",
        # Built against numpy 1, and its fleet.DistributedStrategy breaks with protobuf 7.
        "numpy<2",
        "protobuf<7",
        "setuptools>=64",
    ],
    "export": EXPORT,
    # DigitsDataset: the handwritten digits that come with scikit-learn.
    "quickstart": ["scikit-learn>=1.3"],
    # Decodes only the part of a JPEG that a crop needs (docs/data.md). The package brings
    # libjpeg-turbo 3 along; one of the system is found without it.
    "fast-jpeg": [_TURBOJPEG],
    # Pictures of data and models: passl-visualize, passl-data preview.
    "visualize": ["matplotlib>=3.7"],
    # Logging.writers: [TensorBoard]: the first writes, the second shows.
    "tensorboard": ["tensorboardX>=2.6.2", "tensorboard>=2.15"],
    # Logging.writers: [WandB]
    "wandb": ["wandb>=0.19"],
    # make docs. Material keeps to MkDocs 1; MkDocs 2 reads other settings.
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10"],
    "test": [
        "matplotlib>=3.7",
        "mypy>=1.8",
        "pytest>=7.4",
        "pytest-xdist>=3.5",
        "ruff>=0.5",
        "scikit-learn>=1.3",
        # Its files are read back by the program that shows them.
        "tensorboard>=2.15",
        "tensorboardX>=2.6.2",
        _TURBOJPEG,
        "types-PyYAML",
        # So that the tests of ONNX run; later Pythons have no wheels of the first two.
        *(f'{name} ; python_version < "3.13"' for name in EXPORT),
        # setuptools before 70.1 makes no wheels without it.
        "wheel>=0.40",
    ],
}



class BuildWithConfigs(build_py):
    """Copies configs/ and the configs of tasks/ into the package: passl.config.shipped finds them.

    Laid out as in the checkout, so that their ``_base_`` lines hold. Not in an editable
    installation, which finds the checkout itself.
    """

    def run(self) -> None:
        """As of the base class, then the configs."""
        super().run()
        if getattr(self, "editable_mode", False):
            return
        target = Path(self.build_lib) / "passl" / "_shipped"
        shutil.rmtree(target, ignore_errors=True)  # what an older build has left
        for file in [*HERE.glob("configs/**/*.yaml"), *HERE.glob("tasks/**/configs/*.yaml")]:
            copy = target / file.relative_to(HERE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


setup(
    name="passl",
    version=_VERSION[1],
    description="Train vision transformers on PaddlePaddle from one YAML file",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    author="PASSL contributors",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=find_packages(include=["passl", "passl.*"]),
    package_data={"passl": ["py.typed"]},
    cmdclass={"build_py": BuildWithConfigs},
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "passl=passl.cli.main:main",
            "passl-train=passl.cli.train:main",
            "passl-benchmark=passl.cli.benchmark:main",
            "passl-eval=passl.cli.eval:main",
            "passl-check=passl.cli.check:main",
            "passl-data=passl.cli.data:main",
            "passl-export=passl.cli.export:main",
            "passl-infer=passl.cli.infer:main",
            "passl-models=passl.cli.models:main",
            "passl-sweep=passl.cli.sweep:main",
            "passl-visualize=passl.cli.visualize:main",
            "passl-convert=passl.cli.convert:main",
            "passl-config=passl.cli.config:main",
        ]
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
