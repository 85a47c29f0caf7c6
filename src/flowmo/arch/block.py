"""The two-stream MMDiT block (Section 3.1, Figure 3; B1, B9).

It has one stream of weights for the code, one for the image, and one attention over both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .modulation import AdaLN, AdaLNTable, Modulation, add_gated, modulated_norm
from .rotary import rotate

LONGEST_UNFUSED = 1024

Conditioning = Tensor | list[Modulation] | None
"""What modulations are computed from, or the modulations themselves where they were computed before."""


def attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Return softmax(scale q k^T) v, B heads L head_dim, as query, key and value are."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and key.shape[-2] <= LONGEST_UNFUSED:
        # Two matrix products: twice as fast there as the fused kernel, which gains nothing from half precision. Longer
        # sequences are left to it: their L x L products would take gigabytes.
        return ((query * scale) @ key.transpose(-1, -2)).softmax(-1) @ value
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation of a head's channels, with a learned scale."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.scale.to(x.dtype), eps=1e-6)


class Stream(nn.Module):
    """The weights of one stream in one block: attention projections, MLP and modulation.

    modulation: "none" (encoder), "per_block" or "shared" (decoder).
    updated: False for a stream whose output no one reads (the code in the decoder's last block, the image in the
    encoder's); it then gives keys and values only and has no other weights.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int, modulation: str, updated: bool = True) -> None:
        super().__init__()
        self.heads, self.updated = heads, updated
        self.key_norm = RMSNorm(width // heads)
        if updated:
            self.query_norm = RMSNorm(width // heads)
            self.qkv = nn.Linear(width, 3 * width)
            self.proj = nn.Linear(width, width)
            self.mlp_in = nn.Linear(width, mlp_ratio * width)
            self.mlp_out = nn.Linear(mlp_ratio * width, width)
        else:
            self.kv = nn.Linear(width, 2 * width)
        self.modulation: nn.Module | None = None
        if modulation != "none":
            self.modulation = (AdaLN if modulation == "per_block" else AdaLNTable)(width, gated=updated)

    def modulations(self, conditioning: Conditioning) -> list[Modulation] | list[None]:
        """Return the modulations of a conditioning, one a branch; those that are ready stay as they are."""
        if self.modulation is None or conditioning is None:
            return [None, None]
        return self.modulation(conditioning) if isinstance(conditioning, Tensor) else conditioning

    def attention_inputs(
        self, x: Tensor, modulation: Modulation | None, table: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return query, key and value of tokens x, B L width, each B heads L head_dim.

        The query is None in a stream that is not updated.
        """
        x = modulated_norm(x, modulation)
        x = self.qkv(x) if self.updated else self.kv(x)
        parts = x.unflatten(-1, (-1, self.heads, x.shape[-1] // (3 if self.updated else 2) // self.heads))
        *query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # (q) k v of B heads L head_dim
        key = rotate(self.key_norm(key), table)
        return rotate(self.query_norm(query[0]), table) if query else None, key, value

    def update(self, x: Tensor, attended: Tensor, modulations: list[Modulation] | list[None]) -> Tensor:
        """Return tokens x after the residual step of attention, then that of the MLP. attended: B L width."""
        x = add_gated(x, self.proj(attended), modulations[0])
        hidden = F.gelu(self.mlp_in(modulated_norm(x, modulations[1])), approximate="tanh")
        return add_gated(x, self.mlp_out(hidden), modulations[1])


class TwoStreamBlock(nn.Module):
    """Both streams attend over [code, image] together and are updated apart.

    The attention scale is 8 / head_dim, muP's, which equals 1/sqrt(head_dim) for heads of 64 only (B1).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: int,
        modulation: str,
        updates_code: bool = True,
        updates_image: bool = True,
    ) -> None:
        super().__init__()
        self.attention_scale = 8.0 / (width // heads)
        self.code_stream = Stream(width, heads, mlp_ratio, modulation, updates_code)
        self.image_stream = Stream(width, heads, mlp_ratio, modulation, updates_image)

    def forward(
        self,
        code: Tensor,
        image: Tensor,
        table: Tensor,
        code_conditioning: Conditioning,
        image_conditioning: Conditioning,
    ) -> tuple[Tensor, Tensor]:
        """Return both streams, updated: code B N width and image B P width.

        table: the rotary table of the N + P tokens.
        """
        num_code = code.shape[1]
        code_modulations = self.code_stream.modulations(code_conditioning)
        image_modulations = self.image_stream.modulations(image_conditioning)
        q_c, k_c, v_c = self.code_stream.attention_inputs(code, code_modulations[0], table[:num_code])
        q_i, k_i, v_i = self.image_stream.attention_inputs(image, image_modulations[0], table[num_code:])
        query = torch.cat([q for q in (q_c, q_i) if q is not None], dim=2)
        key, value = torch.cat([k_c, k_i], dim=2), torch.cat([v_c, v_i], dim=2)
        attended = attention(query, key, value, self.attention_scale)
        attended = attended.transpose(1, 2).flatten(2)  # B L width
        if q_c is not None:
            code = self.code_stream.update(code, attended[:, :num_code], code_modulations)
        if q_i is not None:
            image = self.image_stream.update(image, attended[:, -image.shape[1] :], image_modulations)
        return code, image
