"""The codec's encoder in pieces gives what its layers give one after the other."""

from __future__ import annotations

import pytest
import torch

from peav import codec_pieces
from peav.codec import CodecConfig, DACEncoder

SIZES = {
    "odd strides": CodecConfig(
        encoder_dim=4, encoder_rates=(3, 2, 5), latent_dim=8, codebook_dim=3, decoder_dim=16, decoder_rates=(5, 2, 3)
    ),
    "units before the blocks": CodecConfig(
        stem_units=(1, 3), encoder_dim=4, encoder_rates=(2, 4), latent_dim=8, codebook_dim=3, decoder_dim=16,
        decoder_rates=(4, 2),
    ),
    "strided stem": CodecConfig(
        stem_kernel=48, stem_stride=24, stem_units=(1, 3), encoder_dim=8, encoder_rates=(2,), latent_dim=8,
        codebook_dim=3, decoder_dim=16, decoder_rates=(2,),
    ),
}  # fmt: skip


@pytest.fixture(params=SIZES)
def encoder(request) -> DACEncoder:
    torch.manual_seed(0)
    found = DACEncoder(SIZES[request.param]).eval()
    for name, parameter in found.named_parameters():
        if name.endswith("alpha"):
            parameter.data.uniform_(0.5, 3)
    return found


@pytest.mark.parametrize("hops", [1, 7, 200])
def test_pieces_are_the_whole(encoder, hops, monkeypatch):
    monkeypatch.setattr(codec_pieces, "_AT_ONCE", 1)  # as short as they get
    monkeypatch.setattr(codec_pieces, "_LEAST", 1)
    waveform = torch.randn(2, 1, hops * encoder.hop_length)
    given = waveform.clone()
    with torch.no_grad():
        got = encoder.encoder(waveform)
    want = encoder.encoder.block(waveform).detach()
    assert (got - want).abs().max() < 1e-5 * want.abs().max()
    assert torch.equal(waveform, given)


def test_long_sounds_really_come_in_pieces(monkeypatch):
    monkeypatch.setattr(codec_pieces, "_AT_ONCE", 2_000)
    encoder = DACEncoder(SIZES["odd strides"]).eval()
    seen: list[int] = []
    encoder.encoder.block[0].register_forward_hook(lambda layer, given, out: seen.append(out.shape[-1]))
    with torch.no_grad():
        encoder.encoder(torch.randn(1, 1, 30_000))
    assert len(seen) > 5 and max(seen) < 6_000 * torch.get_num_threads()


def test_gradients_take_the_ordinary_way(encoder):
    waveform = torch.randn(1, 1, 3 * encoder.hop_length, requires_grad=True)
    encoder.encoder(waveform).square().sum().backward()
    assert waveform.grad is not None and bool(waveform.grad.abs().sum() > 0)
