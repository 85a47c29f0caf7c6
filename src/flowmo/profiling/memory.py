"""The bytes that training takes on one device are counted while a step runs, or estimated (Section 4.1, compute).

An estimate serves models, strategies and numbers of processes that the machine at hand has no room for.
The estimate runs the very step of the loop on tensors that have shapes and no content, and counts those. What kernels
take for themselves while they work, and what the allocator rounds up, comes on top.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..arch import block
from ..arch.rotary import rotary_table
from ..config import FlowMoConfig
from ..data import Batch
from ..perceptual import LPIPS
from ..perceptual.lpips import Network, build_stages
from ..stages import LossParts
from ..tokenizer import FlowMo
from ..training.configuration.config import STAGES, AutoencodeTrainConfig, TrainConfig
from ..training.processes.distributed import World, blocks, spread

EndToEnd = TrainConfig | AutoencodeTrainConfig
PER_NODE = 8  # GPUs of a node, where there are several
FLOAT32 = 4  # bytes: of weights, gradients, moments and averages whatever the precision of the matrix products


class Memory(NamedTuple):
    """Bytes in one process; under FSDP weights, gradients, optimizer and average are its share of them."""

    weights: int  # of the model
    gradients: int  # of the weights that train
    optimizer: int  # Adam's moments
    average: int  # the EMA of the weights
    gathered: int  # under FSDP, whole weights and gradients of the blocks at work
    # What the forward pass of one micro-batch keeps for the backward pass, half-precision copies of weights included.
    activations: int
    perceptual: int  # d_perc, its weights and what it keeps
    # The most at any moment. It is less than the sum of the others where gradients come while activations go, and more
    # by what single operations hold while they work.
    total: int


class LiveTensors(TorchDispatchMode):
    """A mode that counts the bytes of the tensors that live while it is active, ``now`` and at their ``peak``.

    They are those it was told of and all that operations of this thread make; views count once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def track(self, *tensors: Tensor) -> None:
        """Count these tensors as long as they live."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known[key] = weakref.ref(storage, functools.partial(self._gone, key, size))
                self.now += size
                self.peak = max(self.peak, self.now)

    def forget(self, tensor: Tensor) -> None:
        """Count this tensor no longer."""
        storage = tensor.untyped_storage()
        self._gone(storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int, _: object = None) -> None:
        if self._known.pop(key, None) is not None:
            self.now -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.track(*(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)))
        return result


def memory_per_rank(model: FlowMoConfig, train: EndToEnd, world: int = 1, device: str = "cuda") -> Memory:
    """Return an estimate for one of ``world`` processes that train as ``train`` says, on a GPU ("cuda") or a "cpu".

    ``train.compile`` is not considered, since compiled blocks keep no more.
    Raises ConfigError for a batch that the processes cannot share.
    """
    parts = train.micro_batches(world)
    traced = _trace(model, _what_matters(train, train.batch_size // (parts * world)), device)
    whole, trained = FLOAT32 * traced.parameters, FLOAT32 * traced.trained
    states, gathered = (whole, trained, 2 * trained, whole), 0
    if world > 1 and train.strategy == "fsdp":
        # Weights are cut within a node, and whole on each.
        shards = world if world % PER_NODE else PER_NODE
        states = tuple(-(-size // shards) for size in states)  # type: ignore[assignment]
        # Weights outside the blocks stay from the forward to the backward pass; a block is gathered while the one
        # before it works, and its gradient lies there once as it came and once to be sent. The micro-batches before
        # an update's last send none: their gradients add up whole.
        gathered = FLOAT32 * (traced.outside + 4 * traced.largest_block) + (trained if parts > 1 else 0)
    lasting = sum(states) + gathered + traced.perceptual_weights
    if parts > 1 or world > 1:
        total = lasting + traced.peak_beside_gradients
    else:  # gradients come while activations go
        total = max(lasting, lasting - states[1] + traced.peak)
    if world > 1 and train.strategy == "ddp":  # once, before the second update, it moves the gradients to new buckets
        total = max(total, lasting + states[1])
    return Memory(*states, gathered, traced.activations, traced.perceptual_weights + traced.perceptual, total)


class Traced(NamedTuple):
    """Bytes of a forward and backward pass, beside weights, and numbers of parameters."""

    activations: int  # bytes that the forward pass keeps, without those of d_perc
    perceptual: int  # bytes that d_perc keeps
    perceptual_weights: int  # bytes of the weights of d_perc
    peak: int  # the most bytes, with the gradients that are there at that moment
    peak_beside_gradients: int  # the most bytes without gradients
    parameters: int  # all of them
    trained: int  # those that train
    outside: int  # those outside blocks
    largest_block: int  # those of the largest block


@functools.lru_cache(maxsize=64)
def _trace(config: FlowMoConfig, train: EndToEnd, device: str) -> Traced:
    """Return what one micro-batch of ``train.batch_size`` images takes."""
    with torch.device("meta"):
        model = FlowMo(config)
    # Which part of the images d_perc sees is drawn, and here nothing can be: any part of that size takes as much.
    part_of = slice(train.perceptual_crop)
    step = STAGES[train.stage].stage(model, replace(train, perceptual_crop=None, perceptual_scales=(1.0,)))
    if train.freeze_encoder_after == 0:
        model.encoder.requires_grad_(False)
    network = untrained_lpips(train.perceptual_network) if train.losses.perceptual else None
    live, beside_gradients, kept = LiveTensors(), LiveTensors(), 0

    def distance(estimate: Tensor, image: Tensor) -> Tensor:
        nonlocal kept
        before = live.now
        assert network is not None
        result = network(estimate[..., part_of, part_of], image[..., part_of, part_of])
        kept = live.now - before
        return result

    step.parts = LossParts(distance if network else None)
    with _shapes_only(device):
        for module in (step, network):
            _empty(module)
        for part in blocks(step) if device == "cuda" else []:  # once more each, as backward() suspends such modes
            part.forward = functools.partial(_on_gpu, part.forward)  # type: ignore[method-assign]
        spread(step, World(), recompute=train.recompute_blocks)
        for parameter in step.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda p: beside_gradients.forget(p.grad))
        lasting = [*step.parameters(), *(network.parameters() if network else ())]
        for counter in (live, beside_gradients):
            counter.track(*lasting)
        weights = live.now
        with live, beside_gradients:
            pixels = torch.empty(train.batch_size, 3, config.image_size, config.image_size, dtype=torch.uint8)
            with torch.autocast("cpu", torch.bfloat16, enabled=train.chosen_precision == "bf16"):
                terms = step(Batch(pixels, None, [], [], [], 0), torch.Generator(), train.images)
            activations = live.now - weights
            terms.total.backward()
    sizes = [sum(p.numel() for p in part.parameters()) for part in blocks(step)]
    parameters = [p.numel() for p in step.parameters()]
    return Traced(
        activations - kept,
        kept,
        FLOAT32 * sum(p.numel() for p in network.parameters()) if network else 0,
        live.peak - weights,
        beside_gradients.peak - weights,
        sum(parameters),
        sum(p.numel() for p in step.parameters() if p.requires_grad),
        sum(parameters) - sum(sizes),
        max(sizes),
    )


def untrained_lpips(network: Network) -> LPIPS:
    """Return LPIPS with random weights, for where only its cost matters."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, weight in build_stages(network).state_dict().items():
        deviation = (2 / max(1, weight[0].numel())) ** 0.5
        tensors[f"stages.{name}"] = torch.randn(weight.shape, generator=generator) * deviation
    widths = {name.split(".")[1]: weight.shape[0] for name, weight in tensors.items() if name.endswith("bias")}
    for stage, width in widths.items():
        tensors[f"lins.{stage}"] = torch.full((width,), 1 / width)
    return LPIPS(network, tensors)


def _what_matters(train: EndToEnd, micro: int) -> EndToEnd:
    """Return the settings that change a pass, the others as they are by default, so that a pass is traced once."""
    names = "losses", "perceptual_network", "perceptual_share", "perceptual_crop", "precision", "recompute_blocks"
    same = {name: getattr(train, name) for name in names}
    frozen = 0 if train.freeze_encoder_after == 0 else None
    return replace(type(train)(**same), batch_size=micro, freeze_encoder_after=frozen)


def _empty(module: nn.Module | None) -> None:
    """Replace parameters and buffers by ones without content, made in the mode that is active."""
    for part in module.modules() if module else ():
        for name, p in part._parameters.items():
            if p is not None:
                part._parameters[name] = nn.Parameter(torch.empty(p.shape), requires_grad=p.requires_grad)
        for name, b in part._buffers.items():
            if b is not None:
                part._buffers[name] = torch.empty(b.shape)


@contextlib.contextmanager
def _shapes_only(device: str) -> Iterator[None]:
    """Make tensors without content within, in operations that keep what those of ``device`` would keep."""
    longest = block.LONGEST_UNFUSED
    rotary_table.cache_clear()  # no real table in here, none without content later
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(FakeTensorMode())
            if device == "cuda":
                block.LONGEST_UNFUSED = 0
                stack.enter_context(_LikeGPU())
            yield
    finally:
        block.LONGEST_UNFUSED = longest
        rotary_table.cache_clear()


def _on_gpu(forward: Callable[..., Any], *args: Any) -> Any:
    with _LikeGPU():
        return forward(*args)


class _LikeGPU(TorchFunctionMode):
    """A mode in which three operations keep what they keep on a GPU, since without one PyTorch traces for a CPU.

    On a GPU attention is fused, and under autocast norms are in float32 (RMSNorm since PyTorch 2.12).
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        mixed = torch.is_autocast_enabled("cpu")
        if function is F.scaled_dot_product_attention:
            parts = [x.to(torch.bfloat16) if mixed else x for x in args]
            return torch.ops.aten._scaled_dot_product_flash_attention(*parts, scale=kwargs["scale"])[0]
        if function is F.layer_norm and mixed:
            return function(args[0].float(), *args[1:], **kwargs)
        if function is F.rms_norm:
            x, shape, weight = args[0], args[1], kwargs["weight"]
            if mixed and torch.torch_version.TorchVersion(torch.__version__) >= "2.12":
                x, weight = x.float(), weight.float()
            return torch.ops.aten._fused_rms_norm(x, list(shape), weight, kwargs["eps"])[0]
        return function(*args, **kwargs)
