"""What the decoder is given beside x_t: a code, and which parts of it (Section 3.1; B7, C3).

The null condition of guidance, code dropout, and codes of which only some bits or tokens are known are all masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """A code, and which of its channels are given. A channel that is not given is 0, which is neither sign."""

    code: Tensor  # B N K
    mask: Tensor | None = None  # 1 where a channel is given and 0 where not, broadcast to B N K; None where all are

    @classmethod
    def of(cls, code: Tensor | Condition) -> Condition:
        """Return the condition in which a whole code is given; a condition as it is."""
        return code if isinstance(code, Condition) else cls(code)

    def null(self) -> Condition:
        """Return the null condition of the same shape, in which nothing is given."""
        return Condition(self.code, self.code.new_zeros(1, 1, 1))

    def keep_images(self, keep: Tensor) -> Condition:
        """Return the condition with the codes of only the images where ``keep`` (B,) of bool is True: code dropout."""
        return self.masked(keep[:, None, None])

    def keep_bits(self, count: Tensor | int) -> Condition:
        """Return the condition with only the first ``count`` channels of each token, one number or (B,) of them."""
        bits = torch.arange(self.code.shape[-1], device=self.code.device)
        counts = torch.as_tensor(count, device=self.code.device).reshape(-1, 1, 1)
        return self.masked(bits < counts)

    def keep_tokens(self, keep: Tensor) -> Condition:
        """Return the condition with only the tokens where ``keep``, (N,) or B N of bool, is True."""
        return self.masked(keep[..., None])

    def masked(self, mask: Tensor) -> Condition:
        """Return the condition in which only what ``mask`` has too is given."""
        mask = mask.to(self.code.dtype)
        return Condition(self.code, mask if self.mask is None else self.mask * mask)

    def channels(self) -> Tensor:
        """Return what the decoder is given, B N K+1.

        That is the code with zeros where it is not given, and one more channel, which is 1 for each token of which
        anything is given (B7).
        """
        given = torch.ones_like(self.code[..., :1])
        if self.mask is None:
            return torch.cat([self.code, given], dim=-1)
        any_given = given * self.mask.amax(dim=-1, keepdim=True)
        return torch.cat([self.code * self.mask, any_given], dim=-1)
