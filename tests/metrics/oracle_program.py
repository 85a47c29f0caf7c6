"""Computes metrics with other people's packages, in a process and from a folder of packages of its own.

    python oracle_program.py distances|inception|lpips IN.npz OUT.npz [WEIGHTS.pt ...]

Those packages want torchvision, which must not be importable where FlowMo runs, and whose compiled part does not load
beside a torch for CPUs. What they need of it is Python.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import torch

if torch.version.cuda is None:
    LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # kept: it ends with its last reference
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
warnings.simplefilter("ignore")


def distances(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """torch-fidelity's metrics of the same features."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, fake, logits = (torch.from_numpy(given[name]) for name in ("real", "fake", "logits"))
    statistics = [fid_features_to_statistics(features) for features in (real, fake)]
    found = fid_statistics_to_metric(*statistics, verbose=False)
    found |= kid_features_to_metric(real, fake, kid_subsets=20, kid_subset_size=50, rng_seed=7, verbose=False)
    found |= prc_features_to_metric(fake, real, verbose=False)
    found |= isc_features_to_metric(logits, shuffle=False)
    return {name: np.array(value) for name, value in found.items()} | {"covariance": statistics[0]["sigma"]}


@torch.no_grad()
def inception(given: dict[str, np.ndarray], weights: str) -> dict[str, np.ndarray]:
    """torch-fidelity's Inception with the given convolutions, which it has in the same order, and classifier."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    layers, classifier = torch.load(weights, weights_only=True)
    shapes = FeatureExtractorInceptionV3.__new__(FeatureExtractorInceptionV3)
    original, torch.load = torch.load, lambda *_, **__: "none"
    FeatureExtractorInceptionV3.load_state_dict = lambda *_, **__: None
    shapes.__init__("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path="given")
    torch.load = original
    del FeatureExtractorInceptionV3.load_state_dict
    blocks = [module for module in shapes.modules() if hasattr(module, "conv") and hasattr(module, "bn")]
    assert len(blocks) == len(layers)
    for block, layer in zip(blocks, layers, strict=True):
        for target, source in (
            (block.conv.weight, layer["weight"]),
            (block.bn.bias, layer["beta"]),
            (block.bn.running_mean, layer["mean"]),
            (block.bn.running_var, layer["var"]),
        ):
            assert target.shape == source.shape
            target.copy_(source)
        block.bn.weight.fill_(1)
    shapes.fc.weight.copy_(classifier)
    spatial = []
    shapes.Mixed_6d.branch1x1.register_forward_hook(lambda *call: spatial.append(call[2][:, :7]))
    pool, logits = shapes(torch.from_numpy(given["images"]))
    return {"pool": pool, "logits": logits, "spatial": spatial[0].permute(0, 2, 3, 1).flatten(1)}


@torch.no_grad()
def lpips(given: dict[str, np.ndarray], *weights: str) -> dict[str, np.ndarray]:
    """LPIPS with its own last layers; its convolutions, which it would download, are given."""
    from lpips import LPIPS

    found = {}
    for network, file in zip(("vgg", "alex"), weights, strict=True):
        distance = LPIPS(net=network, pnet_rand=True, verbose=False)
        convolutions = [module for module in distance.net.modules() if isinstance(module, torch.nn.Conv2d)]
        for module, (weight, bias) in zip(convolutions, torch.load(file, weights_only=True), strict=True):
            module.weight.copy_(weight)
            module.bias.copy_(bias)
        a, b = (torch.from_numpy(given[name]) for name in ("a", "b"))
        found[network] = distance(a, b).flatten()
    return found


if __name__ == "__main__":
    task, source, target, *weights = sys.argv[1:]
    torch.set_num_threads(1)
    with np.load(source) as arrays:
        result = {"distances": distances, "inception": inception, "lpips": lpips}[task](dict(arrays), *weights)
    np.savez(target, **{name: np.asarray(value) for name, value in result.items()})
