"""SAM 2 (Ravi et al., 2024) and SAM 3's tracker, by transformers, from a folder or hub id that the user names.

The film's pictures reach the model one at a time when it asks for them, and what it remembers of long past ones is
dropped, so memory does not grow with the film. Only ``config.json`` and safetensors are read; nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peav.errors import UserError, shown
from peav.hub import resolve

from .classical import Found
from .pictures import Pictures
from .segment import Seeds

_OBJECT = 1  # the id of the only object in a session
_WAY_OUT = "give the folder or hub id of a SAM 2 or SAM 3 video model, such as facebook/sam2.1-hiera-tiny"
# By model type: the name to show, the classes, and mean and deviation of each channel in training.
_KINDS: dict[str, tuple[str, str, str, tuple, tuple]] = {
    **dict.fromkeys(
        ("sam2", "sam2_video"),
        ("SAM 2", "Sam2VideoModel", "Sam2VideoInferenceSession", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ),
    **dict.fromkeys(
        ("sam3", "sam3_video", "sam3_tracker", "sam3_tracker_video"),
        ("SAM 3", "Sam3TrackerVideoModel", "Sam3TrackerVideoInferenceSession", (0.5,) * 3, (0.5,) * 3),
    ),
}


def load(model: str | Path, device: str | torch.device | None = None) -> Sam:
    """A SAM 2 or SAM 3 video model from a folder or the hub; on the GPU if there is one.

    Also a hub id that arrives as a `Path`, as those that were typed where a folder may stand do, is looked up there.

    Raises:
        UserError: no such folder or hub id, it holds another kind of model, or its weights do not fit its settings.
    """
    folder = resolve(os.fspath(model), allow=("*.json", "*.safetensors"))
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = _KINDS.get(str(settings.get("model_type")))
    except FileNotFoundError:
        raise UserError(f"{shown(model)}: holds no config.json; {_WAY_OUT}") from None
    except (OSError, ValueError, AttributeError) as error:
        why = shown(error, 60)
        raise UserError(f"{shown(model)}: its config.json cannot be read ({why}); fetch it again") from None
    if kind is None:
        raise UserError(f"{shown(model)}: is a {shown(settings.get('model_type'), 40)} model; {_WAY_OUT}")
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"{shown(model)}: holds no safetensors weights; fetch them, or name another model")
    import transformers
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        network, report = getattr(transformers, kind[1]).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # whatever a foreign file provokes in transformers
        why = shown((str(error).splitlines() or [type(error).__name__])[0], 90)
        raise UserError(f"{shown(model)}: cannot be loaded as {kind[0]} ({why}); fetch it again") from error
    finally:
        logging.set_verbosity(verbosity)
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{shown(model)}: lacks {len(missing)} of the weights of a {kind[0]} video model, such as "
            f"{shown(missing[0], 60)}; {_WAY_OUT}"
        )
    name = model if Path(model).is_dir() else str(model)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Sam(network.eval().to(device), str(settings["model_type"]), Path(name).name or str(name))


class Sam:
    """Clicks and boxes to masks by SAM's memory of the frames around.

    Args:
        network: transformers' ``Sam2VideoModel`` or ``Sam3TrackerVideoModel``.
        model_type: as in its settings.
        name: to show beside the kind.
    """

    def __init__(self, network: Any, model_type: str, name: str) -> None:
        self.network = network
        self.kind, _, self._session_class, self._mean, self._deviation = _KINDS[model_type]
        self.name = name
        side = network.config.image_size
        self.side = int(side if isinstance(side, int) else side[0])  # of the square pictures it sees
        self.max_side: int | None = self.side
        # Frames it may look back on: memories of masks, and pointers to the object.
        self._memory = max(int(network.config.num_maskmem), int(network.config.max_object_pointers_in_encoder)) + 1

    @property
    def used(self) -> str:
        return f"{self.kind} ({self.name})"

    @torch.inference_mode()
    def run(self, pictures: Pictures, seeds: Mapping[int, Seeds], tick: Callable[[], None]) -> Iterator[Found]:
        """See `samaudio.visual.classical.Classical.run`."""
        _, first = pictures[min(seeds)]
        height, width = first.shape[:2]
        session = self._session(pictures, height, width)
        anchors = sorted(i for i, seed in seeds.items() if seed.anchors)
        for i in anchors:
            self._say(session, i, seeds[i].wanted, seeds[i].unwanted, seeds[i].box, (height, width))
            yield i, *self._ask(session, i, False, height, width)
            tick()
        for way in (range(anchors[0] + 1, len(pictures)), range(anchors[0] - 1, -1, -1)):
            backwards = way.step < 0
            for i in way:
                if i in anchors:
                    continue
                mask, fit = self._ask(session, i, backwards, height, width)
                if i in seeds and mask.any():
                    inner = _inmost(mask, seeds[i])
                    self._say(session, i, [inner], seeds[i].unwanted, None, (height, width))
                    mask, fit = self._ask(session, i, backwards, height, width)
                yield i, mask, fit
                tick()
                self._forget(session, i, backwards)

    def _session(self, pictures: Pictures, height: int, width: int) -> Any:
        import importlib

        home = importlib.import_module(type(self.network).__module__)
        session = getattr(home, self._session_class)(
            video=None, video_height=height, video_width=width, inference_device=self.network.device,
            inference_state_device=self.network.device, video_storage_device="cpu", dtype=self.network.dtype,
        )  # fmt: skip
        session.processed_frames = _Prepared(pictures, self)
        session.obj_id_to_idx(_OBJECT)
        return session

    def _say(self, session: Any, i: int, wanted: list, unwanted: list, box: Any, size: tuple[int, int]) -> None:
        """Labels as in SAM: 1 and 0 for clicks, 2 and 3 for the corners of a box."""
        places = [*wanted, *unwanted]
        labels = [1] * len(wanted) + [0] * len(unwanted)
        if box is not None:
            places, labels = [box[:2], box[2:], *places], [2, 3, *labels]
        scale = torch.tensor([self.side / size[1], self.side / size[0]])
        at = torch.tensor(places, dtype=torch.float32) * scale
        index = session.obj_id_to_idx(_OBJECT)
        inputs = {
            "point_coords": at.to(self.network.dtype)[None, None],
            "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
        }
        session.add_point_inputs(index, i, inputs)
        session.obj_with_new_inputs = [_OBJECT]

    def _ask(self, session: Any, i: int, backwards: bool, height: int, width: int) -> tuple[np.ndarray, float]:
        """Mask bool ``[H, W]`` of frame i, and how sure the model is that the object is there."""
        out = self.network(inference_session=session, frame_idx=i, reverse=backwards)
        logits = torch.nn.functional.interpolate(
            out.pred_masks.float().reshape(1, 1, *out.pred_masks.shape[-2:]), (height, width), mode="bilinear",
            align_corners=False,
        )[0, 0]  # fmt: skip
        there = float(out.object_score_logits.float().flatten()[0])
        mask = (logits > 0).cpu().numpy() if there > 0 else np.zeros((height, width), bool)
        return mask, float(torch.tensor(there).sigmoid())

    def _forget(self, session: Any, i: int, backwards: bool) -> None:
        past = i + self._memory if backwards else i - self._memory
        index = session.obj_id_to_idx(_OBJECT)
        session.output_dict_per_obj[index]["non_cond_frame_outputs"].pop(past, None)

    def prepared(self, picture: np.ndarray) -> Tensor:
        """``[3, side, side]``, as in training."""
        levels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        square = torch.nn.functional.interpolate(
            levels, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False
        )[0]
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (self._mean, self._deviation))
        return ((square - mean) / deviation).to(self.network.dtype)


class _Prepared:
    """The film's pictures as a session holds them, each made when it is asked for."""

    def __init__(self, pictures: Pictures, sam: Sam) -> None:
        self._pictures, self._sam = pictures, sam

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, i: int) -> Tensor:
        return self._sam.prepared(self._pictures[i][1])


def _inmost(mask: np.ndarray, seeds: Seeds) -> tuple[float, float]:
    """The pixel of the mask that is farthest from its outline and from the negative clicks."""
    from .colours import opencv
    from .seeds import distance

    cv2 = opencv()
    deep = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    if seeds.unwanted:
        deep = np.minimum(deep, distance(seeds.unwanted, *mask.shape)) * mask
    row, column = np.unravel_index(int(np.argmax(deep)), mask.shape)
    return column + 0.5, row + 0.5
