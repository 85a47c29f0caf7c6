"""Table 1 of the paper as data, to stand beside numbers of our own: quoted, never measured here (FACTS E2-E7)."""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "Sargent et al., Flow to the Mode, Table 1"
IMAGES = 50_000
"""Images that its numbers are of."""
COMPARABILITY = """\
quoted: printed in Table 1 of the paper (ImageNet validation, 50,000 images of 256 x 256 pixels), not measured here.
Across such sources only rFID compares, roughly (0.05 either way), and only for the same images and as many of them:
fewer images raise it steeply. The paper's PSNR is pooled over five images; its LPIPS is AlexNet's, where other papers
print VGG's (0.20 beside 0.11 for like quality); its SSIM is of truncated 8-bit images, that of MaskBiT has a Gaussian
window. LlamaGen-32 is 0.219 bits per pixel by its tokens. FlowMo-Hi really has 256 tokens of 56 bits."""


class Quoted(NamedTuple):
    """One row of Table 1 as printed, with None where the paper prints a dash."""

    name: str  # of the tokenizer
    bits_per_pixel: float  # the paper's column
    tokens: int  # of an image, its column "tokens"
    bits_per_token: int  # from its column "vocabulary"
    rfid: float  # lower is better
    psnr: float | None  # in dB, higher is better
    ssim: float | None  # higher is better
    lpips: float | None  # lower is better
    second_hand: bool = False  # the paper quotes the numbers from the tokenizer's own paper (its dagger)


TABLE_1 = (
    Quoted("TiTok-L-32", 0.006, 32, 12, 2.21, 15.60, 0.359, 0.322),
    Quoted("TiTok-B-64", 0.012, 64, 12, 1.70, 16.80, 0.407, 0.252),
    Quoted("TiTok-S-128", 0.023, 128, 12, 1.71, 17.52, 0.437, 0.210),
    Quoted("LlamaGen-16", 0.055, 256, 14, 2.19, 20.67, 0.589, 0.132),
    Quoted("MaskBiT", 0.055, 256, 14, 1.37, 21.5, 0.56, None, second_hand=True),
    Quoted("Cosmos DI-16x16", 0.062, 256, 16, 4.40, 19.98, 0.536, 0.153),
    Quoted("OpenMagViT-V2", 0.070, 256, 18, 1.17, 21.63, 0.640, 0.111),
    Quoted("FlowMo-Lo", 0.070, 256, 18, 0.95, 22.07, 0.649, 0.113),
    Quoted("ViT-VQGAN", 0.203, 1024, 13, 1.28, None, None, None, second_hand=True),
    Quoted("LlamaGen-32", 0.210, 1024, 14, 0.59, 24.44, 0.768, 0.064),
    Quoted("FlowMo-Hi", 0.219, 1024, 14, 0.56, 24.93, 0.785, 0.073),
    Quoted("Cosmos DI-8x8", 0.249, 1024, 16, 0.87, 24.82, 0.763, 0.072),
)
