"""What the decoder is given: null condition, dropped codes, kept bits and tokens are all masks (B7, C3)."""

from __future__ import annotations

import torch

from flowmo.arch import Condition

CODE = torch.where(torch.arange(24).reshape(2, 3, 4) % 3 > 0, 1.0, -1.0)


def test_a_whole_code_and_its_mask_channel() -> None:
    assert torch.equal(Condition(CODE).channels(), torch.cat([CODE, torch.ones(2, 3, 1)], -1))
    assert Condition.of(CODE).code is CODE


def test_the_null_condition_is_all_zeros() -> None:
    assert not Condition(CODE).null().channels().any()
    assert Condition(CODE).null().channels().shape == (2, 3, 5)


def test_dropped_images_are_the_null_condition() -> None:
    channels = Condition(CODE).keep_images(torch.tensor([False, True])).channels()
    assert not channels[0].any()
    assert torch.equal(channels[1], Condition(CODE).channels()[1])


def test_kept_bits_are_the_first_and_the_token_is_given() -> None:
    channels = Condition(CODE).keep_bits(torch.tensor([1, 4])).channels()
    assert torch.equal(channels[0, :, :1], CODE[0, :, :1])
    assert not channels[0, :, 1:4].any()
    assert torch.equal(channels[1, :, :4], CODE[1])
    assert (channels[..., 4] == 1).all()
    assert torch.equal(
        Condition(CODE).keep_bits(2).channels(), Condition(CODE).keep_bits(torch.tensor([2, 2])).channels()
    )


def test_tokens_that_are_not_kept_have_no_mask() -> None:
    channels = Condition(CODE).keep_tokens(torch.tensor([True, False, True])).channels()
    assert not channels[:, 1].any()
    assert (channels[:, [0, 2], 4] == 1).all()


def test_masks_add_up() -> None:
    both = Condition(CODE).keep_images(torch.tensor([True, False])).keep_bits(2)
    channels = both.channels()
    assert not channels[1].any()
    assert not channels[0, :, 2:4].any()
    assert channels[0, :, :2].abs().sum() == 6
