"""A device is checked against a CPU in float32, and its ceilings are measured (``flowmo bench device``)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import FlowMoConfig
from ..provenance import machine
from ..tokenizer import FlowMo
from .agreement import Agreement, agreements
from .attention import Kernel, attention_kernels
from .flops import matrix_ceiling


class DeviceCheck(NamedTuple):
    """What a device computes, beside a CPU, and how fast."""

    machine: dict[str, Any]  # as ``provenance.machine`` gives it
    ceilings: dict[str, float]  # FLOP/s of large matrix products, by precision
    agreements: list[Agreement]  # one a way to run a model
    kernels: list[Kernel]  # of attention; empty where they were not asked for

    @property
    def good(self) -> bool:
        """Return whether every way to run a model is within its bounds."""
        return all(one.good for one in self.agreements)

    def content(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        return {
            "machine": self.machine,
            "ceiling_flops": self.ceilings,
            "agreements": [one._asdict() for one in self.agreements],
            "attention": [one._asdict() for one in self.kernels],
        }

    def ceilings_in_words(self) -> str:
        """Return the device's name, PyTorch's version and the ceilings in TFLOP/s, in a line."""
        products = ", ".join(f"{name} {value / 1e12:.3g}" for name, value in self.ceilings.items())
        name = self.machine.get("gpu", self.machine["cpu"])
        return f"{name}, torch {self.machine['torch']}; matrix products in TFLOP/s: {products}"


def check_device(
    model: FlowMo,
    images: Tensor,
    device: torch.device,
    compilers: dict[str, bool | str],
    shape: FlowMoConfig | None,
    repeats: int,
) -> DeviceCheck:
    """Return how a device runs a model and how fast it multiplies.

    model: on the CPU in float32.
    images: B 3 H W in [-1, 1].
    compilers: as for :func:`agreements`.
    shape: whose attention is timed by each kernel, at the batch size of the images; None for none.
    """
    ceilings = {str(d).removeprefix("torch."): matrix_ceiling(device, d) for d in (torch.float32, torch.bfloat16)}
    found = list(agreements(model, images, device, compilers))
    kernels = [] if shape is None else list(attention_kernels(shape, len(images), device, repeats))
    return DeviceCheck(machine(device), ceilings, found, kernels)
