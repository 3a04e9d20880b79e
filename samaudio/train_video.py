"""Train frame and video towers in the drawn world, beside an audio tower that hears already.

    python -m samaudio.train_video init=samaudio/weights/mini vision=runs/vision/model pictures=pictures \\
        data.manifests=[PATH/manifest.jsonl] folder=runs/video

Running the same command again resumes. The result is ``<folder>/model``, the embedder with its new towers. What it
knew of sounds and words stays as it was, bit by bit: those towers and heads are frozen, so text prompts, the separator
and the Judge give what they gave before.

An object close up (`samaudio.visual.frames`) has to find its own stem among those of all films, its phrase, and,
frame by frame, where in the mixture it is heard (``video_frame``, the PE-A-Frame loss with an object in place of a
text). Whole films have to find their sound and their captions, by the pairs of `peav.pairs`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import hydra
import torch
import torch.nn.functional as F_
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from peav import checkpoints
from peav.config import PEAVConfig
from peav.errors import UserError
from peav.films import CAPTIONS, as_images
from peav.losses import match_keys, matches
from peav.model import PEAV
from peav.scenes import NO, UNSURE, YES
from peav.towers import Encoded
from peav.train_codec import open_stores
from peav.train_embedder import SentenceCache, auroc, pairwise
from peav.training import Ema, Loop, Run, as_dict, batches, descend, to_device
from peav.transformer import TransformerConfig
from peav.vision import VisionConfig

from .drawn import DrawnFilms, Recipe, open_pictures
from .drawn.lessons import Lessons
from .train_vision import load as load_vision

# What is learned; all else is frozen.
NEW = ("video.", "audio_video.", "video_head.", "video_frame_head.", "audio_video_head.", "text_video_head.",
       "text_audio_video_head.", "audio_plus_text_head.", "video_plus_text_head.", "audio_video_logit",
       "text_video_logit", "text_audio_video_logit", "audio_plus_text_logit", "video_plus_text_logit",
       "video_frame_logit")  # fmt: skip
# Of whole films, each by its scale: rows, columns, and the caption that makes two films the same.
WHOLE = {
    "audio_video": ("audio", "video", None),
    "text_video": ("video", "text_video", "video"),
    "text_audio_video": ("audio_video", "text_audio_video", "audio_video"),
    "audio_plus_text": ("audio_plus_text", "video", None),
    "video_plus_text": ("video_plus_text", "audio", None),
}
TIMED = 20.0  # of the scores of `timed`, which lie close together
_IMAGES = 256  # through the frame encoder at once


def build(config: DictConfig) -> PEAV:
    """The embedder of ``config.init`` with towers for video: fresh ones, or its own if it has them.

    Raises:
        UserError: it has no frame-level head, or towers of other sizes.
    """
    hears = checkpoints.load(config.init)
    if not hears.has_frames:
        raise UserError(f"init={config.init}: has no frame-level head to learn from; train one with frames: true")
    vision = VisionConfig.from_dict(as_dict(config.vision_tower))
    sizes = asdict(hears.config) | {"codec": hears.config.codec.to_dict(), "vision": asdict(vision)}
    sizes |= {name: asdict(TransformerConfig(**as_dict(config[name]))) for name in ("video", "audio_video")}
    model = PEAV(PEAVConfig.from_dict(sizes))
    own, known = model.state_dict(), hears.state_dict()
    odd = [name for name in known if name not in own or own[name].shape != known[name].shape]
    if odd:
        raise UserError(f"init={config.init}: {odd[0]} has another size than the towers of the config")
    model.load_state_dict(own | known)
    assert model.video is not None
    if config.vision:
        model.video.vision.load_state_dict(load_vision(config.vision, vision).state_dict())
    if not hears.config.sees:
        # Names of sounds say what is seen as well, so the new text heads begin as the one that is there.
        for name in ("text_video_head", "text_audio_video_head"):
            model.get_submodule(name).load_state_dict(model.get_submodule("text_audio_head").state_dict())
    for name, parameter in model.named_parameters():
        kept = config.freeze_vision and name.startswith("video.vision.")
        parameter.requires_grad_(name.startswith(NEW) and not kept)
    return model


def settle(model: PEAV) -> PEAV:
    """Training mode for what learns; what is frozen does not drop anything either."""
    model.train()
    for name, part in model.named_children():
        if not any(prefix.startswith(f"{name}.") for prefix in NEW):
            part.eval()
    return model


def look(model: PEAV, images: Tensor, run: Run, share: float = 0.0) -> Tensor:
    """Unit vectors ``[M, N, V]`` of bytes ``[M, N, 3, h, w]``.

    Neighbouring frames teach the frame encoder nearly the same, and gradients are what costs: a random ``share`` of
    all frames has them.
    """
    assert model.video is not None
    vision, flat = model.video.vision, images.flatten(0, 1)
    learns = next(vision.parameters()).requires_grad and torch.is_grad_enabled()
    chosen = torch.rand(len(flat), device=flat.device) < (share if learns else 0.0)
    features = torch.empty(len(flat), vision.config.output_dim, device=flat.device)
    for which, graded in ((~chosen, False), (chosen, True)):
        with torch.set_grad_enabled(graded), run.autocast():
            parts = [F_.normalize(vision(as_images(part)).float(), dim=-1) for part in flat[which].split(_IMAGES)]
        if parts:
            features[which] = torch.cat(parts)
    return features.view(*images.shape[:2], -1)


@torch.no_grad()
def hear(model: PEAV, batch: dict, sentences: SentenceCache, run: Run) -> dict[str, Tensor]:
    """Everything of a batch that is not trained: unit vectors of sounds and words."""
    B = len(batch["mixture"])
    latents = model.codec.latents(torch.cat((batch["mixture"], batch["stems"]))[:, None])
    with run.autocast():
        sounds = model.audio(latents)
    pooled, tokens = sounds.pooled.float(), sounds.frames[:B].float()
    words = sentences(batch["phrases"]).to(model.device)
    clips = model.head("audio", pooled)
    frames = model.head("frame", sounds.frames.float())
    return {"mixture": clips[:B], "stems": clips[B:], "pooled": pooled[:B], "tokens": tokens,
            "frames": frames[:B], "stem_frames": frames[B:], "words": model.text_embedding(words),
            "frame_words": model.text_embedding(words, "frame")}  # fmt: skip


def on_tokens(frames: Tensor, count: int) -> Tensor:
    """Video frames ``[M, N, E]`` held until the next one, on ``count`` tokens of the audio tower: ``[M, F, E]``."""
    index = torch.arange(count, device=frames.device) * frames.shape[1] // count
    return frames[:, index]


def frame_scores(model: PEAV, audio: Tensor, video: Tensor) -> Tensor:
    """Log-odds ``[B, M, F]`` that an object ``[M, F, E]`` is heard in a token of a film ``[B, F, E]``."""
    products = torch.einsum("bfe,mfe->bmf", audio, video)
    return products * model.scalar("video_frame_logit_scale") + model.scalar("video_frame_logit_bias")


def timed(objects: Tensor, tokens: Tensor, stems: Tensor, stem_frames: Tensor) -> Tensor:
    """How well objects and sounds agree, in what they are and in when something happens: ``[M, S]``.

    The cosine of the clips plus the mean cosine of what is seen and what is heard at the same time (late interaction,
    as in ColBERT, Khattab and Zaharia 2020, with the clock in place of the best match). A clip's vector says what a
    sound is; of several that are alike only the moments tell which one an object makes.

    Args:
        objects, stems: unit vectors ``[M, E]`` and ``[S, E]``.
        tokens, stem_frames: unit vectors ``[M, F, E]`` and ``[S, F, E]``.
    """
    return objects @ stems.T + torch.einsum("mfe,sfe->ms", tokens, stem_frames) / tokens.shape[1]


def contrast(scores: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of each row's and each column's own pair, the diagonal, among those that ``truth [M, M]`` says are
    none; what is `UNSURE` does not count."""
    logits = (TIMED * scores).masked_fill((truth != NO) & ~torch.eye(len(scores), dtype=torch.bool,
                                                                     device=scores.device), -torch.inf)
    own = torch.arange(len(scores), device=scores.device)
    return (F_.cross_entropy(logits, own) + F_.cross_entropy(logits.T, own)) / 2


def losses(model: PEAV, batch: dict, sentences: SentenceCache, run: Run, share: float = 1.0
           ) -> dict[str, Tensor]:  # fmt: skip
    """Named losses of a batch of `samaudio.drawn.lessons`.

    ``stem``, ``words``: an object finds its stem and its phrase. ``frame``: it is heard where it sounds. ``timed``: it
    finds its stem by what it is and by when something happens. ``near``:
    what it is told by looks points where the words for it point, since the separator follows words. ``whole``: whole
    films and their sound and captions.
    """
    assert model.video is not None and model.audio_video is not None
    heard = hear(model, batch, sentences, run)
    with run.autocast():
        seen = model.video(look(model, batch["views"], run, share))
        objects, frames = model.head("video", seen.pooled).float(), model.head("video_frame", seen.frames).float()
    tokens = on_tokens(frames, heard["frames"].shape[1])
    sounding = ~batch["silent"]
    named = batch["named"]
    own_film = batch["film"][:, None] == batch["film"][None]
    # Rows are objects, columns stems: of another clip of the same sound nothing is said, of one in the same film that
    # it is not the own; silence is nobody's stem.
    stem_truth = torch.where(own_film & ~torch.eye(len(named), dtype=torch.bool, device=named.device), NO, named)
    stem_logits = model.logits("audio_video", objects, heard["stems"])[:, sounding]
    stem_truth = torch.where(sounding[:, None], stem_truth, torch.where(own_film, NO, UNSURE))[:, sounding]
    word_truth = torch.where(batch["silent"][:, None] & own_film & batch["silent"][None], UNSURE, named)
    words = model.logits("text_audio", objects, heard["words"])[:, sounding]
    active = batch["active"]
    there = active[batch["film"], torch.arange(len(active[0]), device=active.device)] == YES  # [M, F]
    near_frame = 1 - (tokens * heard["frame_words"][:, None]).sum(-1)
    near = (1 - (objects * heard["words"]).sum(-1))[sounding].mean()
    near = near + (near_frame * there).sum() / there.sum().clamp_min(1)
    return {
        "stem": pairwise(stem_logits, stem_truth),
        "words": pairwise(words, word_truth[:, sounding]),
        "frame": pairwise(frame_scores(model, heard["frames"], tokens), active),
        "timed": contrast(timed(objects, tokens, heard["stems"], heard["stem_frames"])[sounding][:, sounding],
                          stem_truth[sounding]),
        "near": near,
        "whole": whole(model, batch, heard, sentences, run, share),
    }


def whole(model: PEAV, batch: dict, heard: dict[str, Tensor], sentences: SentenceCache, run: Run, share: float
          ) -> Tensor:  # fmt: skip
    """Mean sigmoid loss over the pairs of `WHOLE`, of all of the picture."""
    embeddings = film_embeddings(model, batch, heard, sentences, run, share)
    terms = []
    for name, (rows, columns, caption) in WHOLE.items():
        logits = model.logits(name, embeddings[rows], embeddings[columns])
        truth = torch.where(torch.eye(len(logits), dtype=torch.bool, device=logits.device), YES, NO)
        if caption is not None:
            key = match_keys(batch[f"caption_{caption}"], caption).to(logits.device)
            truth = torch.where(matches(key, key), YES, truth)
        terms.append(pairwise(logits, truth))
    return torch.stack(terms).mean()


def film_embeddings(model: PEAV, batch: dict, heard: dict[str, Tensor], sentences: SentenceCache, run: Run,
                    share: float = 0.0) -> dict[str, Tensor]:  # fmt: skip
    """Embeddings ``[B, E]`` of whole films by name, as in `peav.model.PEAVOutput`."""
    assert model.video is not None and model.audio_video is not None
    with torch.no_grad():
        texts = {kind: sentences(batch[f"caption_{kind}"]).to(model.device) for kind in CAPTIONS}
    with run.autocast():
        video = model.video(look(model, batch["whole"][:, ::2], run, share))
        both = model.audio_video(Encoded(heard["pooled"], heard["tokens"], None), video)
        pooled = {"video": video.pooled, "audio_video": both.pooled, "text_video": texts["video"],
                  "text_audio_video": texts["audio_video"],
                  "audio_plus_text": torch.cat((heard["pooled"], texts["video"]), dim=-1),
                  "video_plus_text": torch.cat((video.pooled, texts["audio"]), dim=-1)}  # fmt: skip
        return {"audio": heard["mixture"]} | {name: model.head(name, x).float() for name, x in pooled.items()}


@torch.inference_mode()
def validate(model: PEAV, held_out: list[dict], alike: list[dict], sentences: SentenceCache, run: Run
             ) -> dict[str, float]:  # fmt: skip
    """Figures on unseen recordings in an unseen drawing style.

    ``film_r1``: films that find their sound among 50, whole; ``object_r1``: objects that find their stem among 50;
    ``timed_r1``: the same by what is seen and heard when (:func:`timed`);
    ``frame_auroc``: that an object scores higher where it is heard than where another one of its film is;
    ``alike_auroc``: the same where the two look alike. ``words``: cosine of objects and the words for their sound.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in ("film", "audio", "object", "stem", "words", "tokens",
                                                            "stem_frames")}
    areas: dict[str, list[Tensor]] = {"yes": [], "no": []}
    twins: list[float] = []
    for batch in held_out + alike:
        batch = to_device(batch, run.device)
        heard = hear(model, batch, sentences, run)
        assert model.video is not None
        seen = model.video(look(model, batch["views"], run))
        objects = model.head("video", seen.pooled).float()
        tokens = on_tokens(model.head("video_frame", seen.frames).float(), heard["frames"].shape[1])
        scores = frame_scores(model, heard["frames"], tokens)
        rows = torch.arange(len(objects), device=run.device)
        own, truth = scores[batch["film"], rows], batch["active"][batch["film"], rows]
        if len(twins) or batch is not None and len(found["film"]) >= len(held_out):
            twins.append(auroc(own[truth == YES].cpu(), own[truth == NO].cpu()))
            continue
        areas["yes"].append(own[truth == YES].cpu())
        areas["no"].append(own[truth == NO].cpu())
        sounding = ~batch["silent"]
        found["object"].append(objects[sounding])
        found["stem"].append(heard["stems"][sounding])
        found["tokens"].append(tokens[sounding])
        found["stem_frames"].append(heard["stem_frames"][sounding])
        found["words"].append((objects * heard["words"]).sum(-1)[sounding])
        films = film_embeddings(model, batch, heard, sentences, run)
        found["film"].append(films["video"])
        found["audio"].append(films["audio"])
    joined = {name: torch.cat(parts) for name, parts in found.items()}
    return {"valid/film_r1": recall(joined["film"] @ joined["audio"].T),
            "valid/object_r1": recall(joined["object"] @ joined["stem"].T),
            "valid/timed_r1": recall(timed(joined["object"], joined["tokens"], joined["stem"], joined["stem_frames"])),
            "valid/words": float(joined["words"].mean()),
            "valid/frame_auroc": auroc(torch.cat(areas["yes"]), torch.cat(areas["no"])),
            "valid/alike_auroc": sum(twins) / max(len(twins), 1)}


def recall(scores: Tensor, among: int = 50) -> float:
    """Share of rows ``[M, M]`` whose own column scores best among ``among`` of them, in consecutive groups."""
    groups = max(len(scores) // among, 1)
    hits = []
    for members in torch.arange(len(scores), device=scores.device).tensor_split(groups):
        block = scores[members][:, members]
        hits.append(float(block.argmax(1).eq(torch.arange(len(block), device=scores.device)).float().mean()))
    return sum(hits) / len(hits)


def fit(config: DictConfig) -> dict[str, float]:
    """Train to the end of the schedule; returns the last validation figures."""
    loop = Loop(**config.loop)
    run = Run(config.folder, loop)
    OmegaConf.save(config, run.folder / "config.yaml")
    model = settle(build(config).to(run.device))
    assert model.config.vision is not None
    stores = open_stores(config, run, model.sample_rate)
    token = model.config.token_frames * model.config.codec.hop_length
    size, close_up = model.config.vision.image_size, tuple(config.close_up)
    recipe = Recipe(**as_dict(config.recipe) | {"size": tuple(config.film_size)})

    def lessons(split: int, recipe: Recipe, seed: int, number: int) -> Lessons:
        films = DrawnFilms(stores[split], open_pictures(config.pictures, ("train", "valid")[split]), recipe, seed)
        return Lessons(films, number, close_up, size, token, seed)

    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(groups(model, loop, config.vision_rate), betas=(0.9, 0.98))
    ema = Ema(model, loop.ema)
    if run.resume(model=model, optimizer=optimizer, ema=ema) and run.finished:
        return run.last_figures()
    sentences = SentenceCache()
    seed = 2**31 - 1
    held_out, alike = ([lessons(1, kind, seed, 25)(i) for i in range(config.data.valid_batches)]
                       for kind in (replace(recipe, alike=0.0), replace(recipe, alike=1.0)))
    for batch in batches(lessons(0, recipe, loop.seed, loop.batch_size), run):
        if run.done:
            break
        terms = losses(model, to_device(batch, run.device), sentences, run, config.vision_share)
        loss = sum(config.weights[name] * term for name, term in terms.items())
        norm = descend(run, loss.backward, optimizer, parameters, ema, model)
        run.track({"loss": loss, "gradient": norm} | terms)
        if run.step % loop.valid_every == 0:
            with ema.swapped(model):
                run.write(validate(model.eval(), held_out, alike, sentences, run))
            settle(model)
        if run.save_due():
            run.save(model=model, optimizer=optimizer, ema=ema)
    run.save(model=model, optimizer=optimizer, ema=ema)
    with ema.swapped(model):
        figures = validate(model.eval(), held_out, alike, sentences, run)
        if run.rank == 0:
            checkpoints.save(model, Path(run.folder) / "model", dtype=torch.float16)
            model.codec.save_pretrained(Path(run.folder) / "model" / "codec", torch.float16)
    run.write(figures)
    run.plot()
    return figures


def groups(model: PEAV, loop: Loop, vision_rate: float) -> list[dict]:
    """Weights, those of the frame encoder at a rate of their own, and scalars of the losses, see
    `peav.train_embedder.groups`."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    scalars = [p for name, p in named if "_logit_" in name]
    eyes = [p for name, p in named if name.startswith("video.vision.")]
    rest = [p for name, p in named if "_logit_" not in name and not name.startswith("video.vision.")]
    found = [{"params": rest, "weight_decay": loop.weight_decay, "faster": 1.0},
             {"params": scalars, "weight_decay": 0.0, "faster": 10.0}]
    return found + ([{"params": eyes, "weight_decay": loop.weight_decay, "faster": vision_rate}] if eyes else [])


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="video")
def main(config: DictConfig) -> None:
    OmegaConf.resolve(config)
    fit(config)


if __name__ == "__main__":
    main()
