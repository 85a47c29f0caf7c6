"""``import flowmo``: the names a user may rely on, and nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata, resources

import pytest

import flowmo

NAMES = {
    "ConfigError",
    "DataError",
    "FlowMo",
    "FlowMoConfig",
    "FlowMoError",
    "ImageError",
    "Quantized",
    "TokenFileError",
    "Tokens",
    "TrainingError",
    "WeightsError",
    "__version__",
    "flowmo_fewer_params",
    "flowmo_hi",
    "flowmo_lo",
    "flowmo_mini_64",
    "flowmo_mini_hi",
    "flowmo_mini_lo",
    "load",
    "to_pil",
}


def test_the_public_names_are_these() -> None:
    assert set(flowmo.__all__) == NAMES
    assert all(hasattr(flowmo, name) for name in NAMES)


def test_every_error_of_ours_can_be_caught_as_one() -> None:
    errors = [getattr(flowmo, name) for name in NAMES if name.endswith("Error")]
    assert all(issubclass(error, flowmo.FlowMoError) for error in errors)


def test_the_installed_version_is_the_stated_one() -> None:
    try:
        installed = metadata.version("flowmo")
    except metadata.PackageNotFoundError:
        pytest.skip("runs from a source tree that is not installed")
    assert installed == flowmo.__version__


def test_types_are_published() -> None:
    assert resources.files("flowmo").joinpath("py.typed").is_file()


def test_the_import_is_light() -> None:
    """What commands and data sets need is imported when it is used."""
    heavy = ["PIL", "pyarrow", "skimage", "matplotlib", "torchvision"]
    program = f"import sys, flowmo; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
