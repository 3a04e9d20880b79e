"""PE-AV against the reference's numbers, and what the reference lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peav.config import PEAVConfig
from peav.inputs import batch_clips, batch_videos, frame_indices, prepare_video
from peav.model import PEAV
from peav.published import load_published
from peav.towers import align, align_as_published

AV = Path(__file__).parent.parent / "fixtures" / "pe_av"
TOLERANCE = 2e-5  # the reference against itself, with other thread counts: 6.5e-6
AV_IN, AV_OUT = load_file(AV / "inputs.safetensors"), load_file(AV / "outputs.safetensors")

LOGITS = {
    "text_audio": "logits_audio_text",
    "text_video": "logits_video_text",
    "audio_video": "logits_audio_video",
    "text_audio_video": "logits_audio_video_text",
    "audio_plus_text": "logits_audio_plus_text_video",
    "video_plus_text": "logits_video_plus_text_audio",
}
CASES = [
    "full", "padded", "padded_no_video_mask", "full_audio_text", "padded_audio_text", "full_video_text",
    "padded_video_text", "full_audio_video", "padded_audio_video",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def av() -> PEAV:
    return load_published(AV)


def far(got: torch.Tensor, want: torch.Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / max(1.0, float(want.abs().max())))


def arguments(case: str) -> dict:
    """Inputs of a case of the PE-AV fixture."""
    batch = case.split("_")[0]
    given = {}
    if not case.endswith("audio_video"):
        given |= {"token_ids": AV_IN["input_ids"], "token_mask": AV_IN["attention_mask"]}
    if not case.endswith("video_text"):
        given["waveform"] = AV_IN[f"{batch}.input_values"]
        if batch == "padded":
            given["waveform_mask"] = AV_IN["padded.padding_mask"]
    if not case.endswith("audio_text"):
        given["video"] = AV_IN[f"{batch}.pixel_values_videos"]
        if batch == "padded" and "no_video_mask" not in case:
            given["video_mask"] = AV_IN["padded.padding_mask_videos"]
    return given


def compare(out, case: str, prenorm: bool = True) -> set[str]:
    """Check every tensor of a case that the reference gives; the names of those that were compared."""
    wanted = {n[len(case) + 1 :]: t for n, t in AV_OUT.items() if n.startswith(f"{case}.") and n.count(".") == 1}
    if prenorm:
        wanted |= {n[len(case) + 9 :]: t for n, t in AV_OUT.items() if n.startswith(f"{case}.prenorm.")}
    compared = set()
    for name, want in wanted.items():
        if name.endswith("_embeds"):
            got = out.embeddings[name.removesuffix("_embeds")]
        elif name.startswith("logits_"):
            got = out.logits[next(ours for ours, theirs in LOGITS.items() if theirs == name)]
        elif name.endswith("_pooler_output"):
            got = getattr(out, name.removesuffix("_pooler_output")).pooled
        elif name == "text_last_hidden_state":
            keep = AV_IN["attention_mask"].bool()
            got, want = out.text_states[keep], want[keep]
        else:
            encoded = getattr(out, name.removesuffix("_last_hidden_state"))
            keep = torch.ones(want.shape[:2], dtype=torch.bool) if encoded.mask is None else encoded.mask
            got, want = encoded.frames[keep], want[keep]
        assert far(got, want) < TOLERANCE, name
        compared.add(name)
    return compared


@pytest.mark.parametrize("case", CASES)
def test_every_embedding_and_logit_is_the_published_one(av, case):
    compared = compare(av(**arguments(case), compatible=True), case)
    assert len(compared) >= 4
    if case in ("full", "padded", "padded_no_video_mask"):
        assert len(compared) == 8 + 6 + 6 + 1


@pytest.mark.parametrize("case", ["full", "full_audio_text", "full_video_text", "full_audio_video"])
def test_without_padding_the_default_mode_is_the_published_one(av, case):
    assert compare(av(**arguments(case)), case)


def test_video_does_not_depend_on_the_mode(av):
    assert compare(av(**arguments("padded_video_text")), "padded_video_text")


def test_codec_and_vision_tower_alone_are_the_published_ones(av):
    latents, _ = av.audio.latents(AV_IN["full.input_values"])
    assert far(latents.transpose(1, 2), AV_OUT["debug.full.codec_features"]) < TOLERANCE
    images = AV_IN["full.pixel_values_videos"]
    assert far(av.video.vision(images.flatten(0, 1)).view(2, 6, -1), AV_OUT["debug.full.vision_logits"]) < TOLERANCE


def test_text_after_the_norm_is_what_transformers_gives_today():
    model = load_published(AV, text_after_norm=True)
    assert compare(model(**arguments("padded"), compatible=True), "padded", prenorm=False)


def test_by_default_nothing_depends_on_the_batch(av):
    together = av(**arguments("padded"))
    clip, video = (AV_IN[f"padded.{name}"][1:] for name in ("input_values", "pixel_values_videos"))
    samples, images = (int(AV_IN[f"padded.{name}"][1].sum()) for name in ("padding_mask", "padding_mask_videos"))
    words = int(AV_IN["attention_mask"][1].sum())
    alone = av(
        token_ids=AV_IN["input_ids"][1:, :words], waveform=clip[..., :samples], video=video[:, :images]
    )
    assert set(alone.embeddings) == set(together.embeddings) and len(alone.embeddings) == 8
    for name, want in alone.embeddings.items():
        assert far(together.embeddings[name][1:], want) < TOLERANCE, name
    published = av(**arguments("padded"), compatible=True)
    assert far(published.embeddings["audio"][1:], alone.embeddings["audio"]) > 1e-2


def test_a_clip_padded_on_the_left_is_the_same_clip(av):
    waveform, mask = AV_IN["padded.input_values"][1:], AV_IN["padded.padding_mask"][1:]
    samples = int(mask.sum())
    moved = torch.zeros_like(waveform), torch.zeros_like(mask)
    moved[0][..., -samples:], moved[1][..., -samples:] = waveform[..., :samples], 1
    want = av(waveform=waveform, waveform_mask=mask).embeddings["audio"]
    assert far(av(waveform=moved[0], waveform_mask=moved[1]).embeddings["audio"], want) < TOLERANCE


def test_features_can_take_the_place_of_waveform_and_video(av):
    given = arguments("padded_audio_video")
    latents, latent_mask = av.audio.latents(given["waveform"], given["waveform_mask"])
    features = av.video.features(given["video"], given["video_mask"])
    out = av(latents=latents, latent_mask=latent_mask, vision_features=features, video_mask=given["video_mask"])
    assert torch.equal(out.embeddings["audio_video"], av(**given).embeddings["audio_video"])


def test_weights_can_be_loaded_in_half_precision(av):
    model = load_published(AV, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    given = arguments("padded")
    want = av(**given).embeddings["audio_video"]
    assert far(model(**given).embeddings["audio_video"].float(), want) < 0.2


@pytest.mark.parametrize(("given", "name"), [
    ({"text"}, "text_audio"), ({"audio"}, "audio"), ({"video"}, "video"), ({"audio", "video"}, "audio_video"),
    ({"audio", "text"}, "audio_plus_text"), ({"video", "text"}, "video_plus_text"),
])  # fmt: skip
def test_embed_takes_what_a_user_has(av, given, name):
    clips = [torch.linspace(-1, 1, 100), torch.linspace(1, -1, 60)]
    videos = [torch.randint(0, 255, (n, 3, 50, 44), dtype=torch.uint8) for n in (3, 2)]
    has = {"text": ["rain", "a dog barking in the park"], "audio": clips, "video": videos}
    got = av.embed(**{key: has[key] for key in given}, normalise=True)
    alone = av.embed(**{key: has[key][1:] for key in given}, normalise=True)
    assert got.shape == (2, 24) and far(got[1:], alone) < TOLERANCE
    assert torch.allclose(got.norm(dim=1), torch.ones(2))
    assert far(got[:1], got[1:]) > 1e-3


def test_texts_are_embedded_for_what_they_are_compared_with(av):
    found = [av.embed(text=["rain"], text_for=name) for name in ("audio", "video", "audio_video")]
    assert far(found[0], found[1]) > 1e-2 and far(found[1], found[2]) > 1e-2
    with pytest.raises(ValueError, match="text_for='image'"):
        av.embed(text=["rain"], text_for="image")
    with pytest.raises(ValueError, match="one or two"):
        av.embed()
    with pytest.raises(ValueError, match="equal numbers"):
        av.embed(text=["rain"], audio=[torch.zeros(50)] * 2)


def test_inputs_are_prepared_as_by_the_published_processors(av):
    clips = [AV_IN["processor.audio_0"], AV_IN["processor.audio_1"]]
    waveform, mask = batch_clips(clips, hop_length=24)
    assert torch.equal(waveform, AV_OUT["processor.input_values"])
    assert torch.equal(mask.int(), AV_OUT["processor.padding_mask"])
    videos = [prepare_video(AV_IN[f"processor.video_{i}"], (42, 42)) for i in (0, 1)]
    video, frames = batch_videos(videos)
    assert torch.equal(frames, AV_OUT["processor.padding_mask_videos"])
    assert (video - AV_OUT["processor.pixel_values_videos"]).abs().max() <= 1 / 127.5 + 1e-6
    assert frame_indices(16, 16) == list(range(16)) and frame_indices(1, 16) == [0] * 16
    # Clips as they are and clips continued by their reflection are the same clips.
    raw = av(**dict(zip(("waveform", "waveform_mask"), batch_clips(clips), strict=True)))
    assert far(raw.embeddings["audio"], av(waveform=waveform, waveform_mask=mask).embeddings["audio"]) < TOLERANCE


def test_video_is_spread_over_the_true_length_of_its_audio():
    video = torch.arange(1.0, 9).view(2, 4, 1)
    video_mask = torch.tensor([[True] * 4, [True, True, False, False]])
    audio_mask = torch.tensor([[True] * 8, [True] * 4 + [False] * 4])
    got = align(video, 8, video_mask, audio_mask)[..., 0]
    assert got.tolist() == [[1, 1, 2, 2, 3, 3, 4, 4], [5, 5, 6, 6, 0, 0, 0, 0]]
    same = torch.tensor([[True, True, False, False], [True] * 4])
    assert align(video, 4, None, same)[0, :, 0].tolist() == [1, 3, 0, 0]
    assert align_as_published(video, 4, None, same) is video
    # All audio as long as the padded video: the published code stretches the video over the padding too.
    half = torch.tensor([[True] * 4 + [False] * 4] * 2)
    assert align_as_published(video, 8, None, half)[0, :, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert align(video, 8, None, half)[0, :, 0].tolist() == [1, 2, 3, 4, 0, 0, 0, 0]
    ragged = torch.tensor([[True] * 8, [True] * 6 + [False] * 2])
    assert torch.equal(align_as_published(video, 8, None, ragged), align(video, 8, None, ragged))


def test_shapes_that_do_not_fit_are_told(av):
    with pytest.raises(ValueError, match=r"\[B, 1, T\]"):
        av(waveform=torch.zeros(2, 48))
    with pytest.raises(ValueError, match="nothing to embed"):
        av()
    with pytest.raises(ValueError, match="2 clips and 1 videos"):
        av(waveform=torch.zeros(2, 1, 48), video=torch.zeros(1, 2, 3, 42, 42))
    with pytest.raises(ValueError, match="either waveform or latents"):
        av(waveform=torch.zeros(1, 1, 48), latents=torch.zeros(1, 8, 2))


def test_sizes_come_from_the_config(av):
    config: PEAVConfig = av.config
    assert config.vision is not None and config.vision.image_size == (42, 42)
    assert (config.text.local_attention, config.text.full_attention) == (6, (True, False, False, True))
    assert config.codec.hop_length == 24 and config.frame_seconds == 24 / 48_000
