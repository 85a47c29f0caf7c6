"""FlowMo, the diffusion autoencoder: parts for training and the user's verbs (Section 3, Figure 3).

    encode                                 decode: n steps from t = 1 to t = 0

    image      B 3 H W                     noise       B 3 H W
      |                                      |
    Encoder <- c_0 B N K                     v
      |                              +---> x_t         B 3 H W
    latent     B N K                 |       |
      |                              |     Decoder  <- code, t
    quantizer                        |       |
      |     |                        |     velocity    B 3 H W
      v     v                        |       |
    code  tokens                     +---- solver      one step of the time grid, guided in an interval of t
    B N K B N G                              |
                                             v
                                           image       B 3 H W

``encode`` and ``quantize`` are the left side, ``velocity`` the decoder, ``sample`` the loop; ``tokenize``,
``detokenize`` and ``reconstruct`` are these for users. N tokens of K channels; G integers a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .arch import Condition, Decoder, Encoder, TransformEncoder
from .config import FlowMoConfig, SamplerConfig
from .flow import Guidance, Solver, shifted_grid, solve, velocity_from_estimate
from .pretrained import Pretrained
from .quantize import Average, Quantized, make_quantizer
from .verbs import Verbs

SMALLEST_TRAINING_T = 0.05  # keeps the loss of a clean prediction finite at low noise


class FlowMo(Pretrained, Verbs):
    """The tokenizer, a diffusion autoencoder: image to latent to code (and tokens), and back to an image.

    The parts (:meth:`encode`, :meth:`quantize`, :meth:`velocity`, :meth:`sample`) keep gradients; the verbs
    (:meth:`tokenize`, :meth:`detokenize`, :meth:`reconstruct`, in ``verbs.py``) do not.
    """

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config) if config.transform is None else TransformEncoder(config)
        self.quantizer = make_quantizer(config)
        self.decoder = Decoder(config)

    def encode(self, image: Tensor) -> Tensor:
        """Return the latents c-hat, B N K, of images B 3 H W in [-1, 1] (Eq. 1).

        The sides must be multiples of the patch sizes.
        """
        return self.encoder(image)

    def quantize(self, latent: Tensor, average: Average | None = None) -> Quantized:
        """Return code, tokens and losses of a latent B N K (Eq. 2).

        average: over processes, so that the entropy of the mean code (Eq. 7) is that of all their samples (A7).
        """
        return self.quantizer(latent, average)

    def velocity(self, x_t: Tensor, given: Tensor | Condition | None, t: Tensor, exact: bool = False) -> Tensor:
        """Return the velocity v = d_theta(x_t, c, t), B 3 H W (Eq. 3).

        given: a code B N K, or a condition in which parts of one are given, or None for the null condition.
        t: (B,) in [0, 1].
        exact: divide a clean prediction by t itself in training mode too, as in sampling. A t held above a grid's last
        levels would leave noise in the image (O3).
        """
        if given is None:
            size = (x_t.shape[-2], x_t.shape[-1])
            given = Condition(x_t.new_zeros(len(x_t), self.config.tokens_of(size), self.config.latent_dim)).null()
        channels = Condition.of(given).channels().to(self.decoder.code_in.weight.dtype)
        smallest_t = SMALLEST_TRAINING_T if self.training and not exact else 0.0
        return self._as_velocity(self.decoder(x_t, channels, t), x_t, t, smallest_t)

    def sample(
        self,
        given: Tensor | Condition,
        noise: Tensor,
        sampler: SamplerConfig | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Return the images B 3 H W, not clipped, that the sampler makes of noise B 3 H W (Section 3.4).

        sampler: ``config.sampler`` by default.
        on_step: called with (k, state) after each step.
        """
        sampler = sampler or self.config.sampler
        levels = shifted_grid(sampler.num_steps, sampler.rho).tolist()  # on the host, which never waits for the device
        velocity = self.level_velocity(Condition.of(given), noise, levels, Guidance.of(sampler), sampler.solver)
        return solve(velocity, noise, levels, sampler.solver, on_step)

    def level_velocity(
        self, condition: Condition, noise: Tensor, levels: Sequence[float], guidance: Guidance, solver: Solver = "euler"
    ) -> Callable[[Tensor, int], Tensor]:
        """Return the function of (state, k) that gives the guided velocity at the k-th level.

        It gives the same as :meth:`velocity` with ``guidance``, pass by pass, in fewer operations. What the levels and
        the code decide is computed here, once; and where guidance acts, both conditions share a pass.
        """
        decoder = self.decoder
        t = torch.tensor(levels[:-1], dtype=torch.float64).to(noise.device, noise.dtype)
        conditionings = decoder.conditionings(t)
        alone = both = decoder.context(condition.channels(), noise)
        if any(guidance.acts(level) for level in levels[:-1]):
            null = decoder.context(condition.null().channels()[:1], noise[:1])
            linear = alone.linear
            if linear is not None and null.linear is not None:
                linear = torch.cat([linear, null.linear.expand_as(linear)])
            both = alone._replace(code=torch.cat([alone.code, null.code.expand_as(alone.code)]), linear=linear)
        forward = self.inference.decoder_forward(decoder.forward_blocks)

        def velocity(x: Tensor, k: int) -> Tensor:
            guided = guidance.acts(levels[k])
            x = x.repeat(2, 1, 1, 1) if guided else x
            output = forward(x, both if guided else alone, conditionings[k]).to(x.dtype)
            v = self._as_velocity(output, x, t[k])
            return guidance.combine(*v.chunk(2)) if guided else v

        return velocity

    def _as_velocity(self, output: Tensor, x_t: Tensor, t: Tensor, smallest_t: float = 0.0) -> Tensor:
        """Return the decoder's output as a velocity, whichever of the two it predicts (O2)."""
        if self.config.prediction == "velocity":
            return output
        return velocity_from_estimate(x_t, output, t, smallest_t)
