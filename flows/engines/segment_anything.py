"""The analyzer of the extra `sam`: Grounding DINO finds things by name, SAM 2 cuts their masks.

Both models are read from folders as transformers saves them, weights as safetensors only (nothing in them is run), and
nothing is ever downloaded. Pictures are prepared and boxes read here, so no processor of the models is needed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from edi_storage.errors import EngineError, InputError
from edi_storage.models import BoundingBox, EntityData
from flows.engines.backends import Backends
from flows.engines.base import Detection, Mask, Pixels, Progress, Scene, no_progress
from flows.engines.regions import place_name

#: What is looked for, by the names that the embedded reasoner knows.
THINGS: Final = (
    "sky", "vegetation", "tree", "grass", "flower", "water", "mountain", "building", "road", "ground", "person", "face",
    "hair", "dress", "dog", "cat", "bird", "horse", "car", "bicycle", "boat", "sign", "table", "chair", "wall",
)  # fmt: skip
#: Mean and deviation of the pictures that both models were trained on (ImageNet), RGB in 0..1.
_MEAN: Final = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION: Final = np.array([0.229, 0.224, 0.225], dtype=np.float32)
#: Shorter and longer side of what Grounding DINO sees (Liu et al. 2023).
_SHORT, _LONG = 800, 1333
_CERTAIN: Final = 0.3
#: Masks that overlap by more than this (intersection over union) are one thing found twice.
_SAME: Final = 0.8
_MOST: Final = 12
#: Smaller than this fraction of the picture is nothing that anybody names.
_LEAST: Final = 0.0005


@dataclass(frozen=True)
class _Found:
    """A box in pixels (left, top, right, bottom), what is in it, and how certain."""

    label: str
    certainty: float
    box: tuple[float, float, float, float]


class SegmentAnythingAnalyzer:
    """See the module."""

    name = "sam"

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    @property
    def version(self) -> str:
        """This engine's version, and the folders of its models."""
        names = [path.name if path else "?" for path in (self._backends.grounding_model, self._backends.sam_model)]
        return f"1 ({', '.join(names)})"

    def analyze(self, pixels: Pixels, progress: Progress = no_progress) -> Scene:
        """Find at most twelve things. Raises InputError when a model cannot be loaded, EngineError without memory."""
        check_models(self._backends)
        import torch

        try:
            with torch.inference_mode():
                progress(0.05, "loading Grounding DINO", {})
                found = _find(pixels, self._backends.grounding_model, progress)
                progress(0.55, "cutting masks", {})
                masks = _cut(pixels, [thing.box for thing in found], self._backends.sam_model) if found else []
        except (MemoryError, RuntimeError) as error:
            raise EngineError(f"SAM could not look at the photo: {str(error).splitlines()[0][:200]}.") from error
        progress(0.95, "describing the picture", {})
        return _scene(pixels, found, masks)


def check_models(backends: Backends) -> None:
    """Raise InputError when something is missing: the extra, a setting, or the files of a model."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise InputError("EDI_ANALYZER is sam, but its extra is not installed: pip install 'edi-edit[sam]'.")
    for setting, folder in (("EDI_SAM_MODEL", backends.sam_model), ("EDI_GROUNDING_MODEL", backends.grounding_model)):
        if folder is None:
            raise InputError(f"EDI_ANALYZER is sam, but {setting} is not set: give the folder of the model.")
        path = folder.expanduser()
        if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
            raise InputError(f"{setting} is {folder}, but there is no model: it needs config.json and *.safetensors.")


def _load(kind: str, setting: str, folder: Path | None, **options: Any) -> Any:
    # Before the import: with it, transformers does not so much as look outside.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    # A person reads EDI's own progress; theirs would be written across it.
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    assert folder is not None
    try:
        return getattr(transformers, kind).from_pretrained(folder.expanduser(), local_files_only=True, **options)
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{setting} is {folder}, which cannot be loaded as {kind}: {why}") from error


# --- Grounding DINO: what is where -------------------------------------------------------------------


def _find(pixels: Pixels, folder: Path | None, progress: Progress) -> list[_Found]:
    """The things of `THINGS` in the picture, the most certain first."""
    import torch

    model = _load("GroundingDinoForObjectDetection", "EDI_GROUNDING_MODEL", folder, use_safetensors=True).eval()
    tokenizer = _load("AutoTokenizer", "EDI_GROUNDING_MODEL", folder)
    progress(0.2, "looking for things", {})
    height, width = pixels.shape[:2]
    scale = min(_SHORT / min(height, width), _LONG / max(height, width))
    picture = torch.from_numpy(prepared(pixels, max(1, round(width * scale)), max(1, round(height * scale))))
    text = " ".join(f"{thing}." for thing in THINGS)
    tokens = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
    things = things_of([(int(a), int(b)) for a, b in tokens.pop("offset_mapping")[0]])
    output = model(pixel_values=picture, **tokens)
    scores = output.logits[0].sigmoid().float().numpy()[:, : len(things)]
    boxes = output.pred_boxes[0].float().numpy()
    return found_in(scores, boxes, things, width, height)


def things_of(offsets: Sequence[tuple[int, int]]) -> list[int]:
    """For each token of the text, the number of the thing it belongs to; -1 for none. `offsets` are in characters."""
    ends = np.cumsum([len(thing) + 2 for thing in THINGS])  # with the dot and the space
    numbers = []
    for start, end in offsets:
        number = int(np.searchsorted(ends, start, side="right"))
        inside = end > start and number < len(THINGS) and end <= ends[number] - 2
        numbers.append(number if inside else -1)
    return numbers


def found_in(scores: Any, boxes: Any, things: Sequence[int], width: int, height: int) -> list[_Found]:
    """Boxes whose best thing is certain enough. `scores`: boxes x tokens, 0..1; `boxes`: centre and size, 0..1."""
    belongs = np.array(things)
    found = []
    for score, (x, y, w, h) in zip(scores, boxes, strict=True):
        by_thing = [float(score[belongs == n].max(initial=0.0)) for n in range(len(THINGS))]
        best = int(np.argmax(by_thing))
        left, right = max(0.0, (x - w / 2) * width), min(float(width), (x + w / 2) * width)
        top, bottom = max(0.0, (y - h / 2) * height), min(float(height), (y + h / 2) * height)
        if by_thing[best] >= _CERTAIN and right - left >= 1 and bottom - top >= 1:
            found.append(_Found(THINGS[best], by_thing[best], (float(left), float(top), float(right), float(bottom))))
    return sorted(found, key=lambda thing: (-thing.certainty, thing.box))[: 2 * _MOST]


def prepared(pixels: Pixels, width: int, height: int) -> Any:
    """The picture as both models take it: 1 x 3 x height x width, float32, normalised."""
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((small - _MEAN) / _DEVIATION).transpose(2, 0, 1)[None])


# --- SAM 2: which pixels -----------------------------------------------------------------------------


def _cut(pixels: Pixels, boxes: Sequence[tuple[float, ...]], folder: Path | None) -> list[Mask]:
    """The mask of what is in each box, 0..1, of the picture's size."""
    import torch

    model = _load("Sam2Model", "EDI_SAM_MODEL", folder, use_safetensors=True).eval()
    side = int(model.config.vision_config.backbone_config.image_size[0])
    height, width = pixels.shape[:2]
    scaled = np.array(boxes, np.float32) * np.array([side / width, side / height] * 2, np.float32)
    output = model(
        pixel_values=torch.from_numpy(prepared(pixels, side, side)),
        input_boxes=torch.from_numpy(scaled[None]),
        multimask_output=False,
    )
    logits = output.pred_masks[0, :, 0].float().numpy()
    large = (cv2.resize(logit, (width, height), interpolation=cv2.INTER_LINEAR) for logit in logits)
    return [np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))), dtype=np.float32) for logit in large]


# --- The scene ---------------------------------------------------------------------------------------


def _scene(pixels: Pixels, found: Sequence[_Found], masks: Sequence[Mask]) -> Scene:
    kept = [(thing, mask) for thing, mask in zip(found, masks, strict=True) if float(mask.mean()) >= _LEAST]
    kept = _once(kept)[:_MOST]
    kept.sort(key=lambda pair: (-float(pair[1].mean()), pair[0].label))
    seen: Counter[str] = Counter()
    detections = []
    for thing, mask in kept:
        detections.append(Detection(_entity(thing, mask, pixels, seen[thing.label]), mask))
        seen[thing.label] += 1
    layout = "; ".join(_placed(detection) for detection in detections).capitalize()
    return Scene(detections, f"{layout}." if layout else "Nothing that stands out.")


def _once(pairs: Sequence[tuple[_Found, Mask]]) -> list[tuple[_Found, Mask]]:
    """Without what overlaps something more certain almost entirely."""
    kept: list[tuple[_Found, Mask]] = []
    for thing, mask in pairs:
        inside = mask > 0.5
        others = (other > 0.5 for _, other in kept)
        if all((inside & other).sum() <= _SAME * max(1, (inside | other).sum()) for other in others):
            kept.append((thing, mask))
    return kept


def _entity(thing: _Found, mask: Mask, pixels: Pixels, number: int) -> EntityData:
    left, top = int(thing.box[0]), int(thing.box[1])
    width, height = max(1, round(thing.box[2]) - left), max(1, round(thing.box[3]) - top)
    weights = mask[..., None] + np.float32(1e-6)
    colour = (pixels * weights).sum(axis=(0, 1)) / weights.sum()
    return EntityData(
        entity_id=f"{thing.label}_{number}",
        label=thing.label,
        confidence=round(min(1.0, thing.certainty), 3),
        bbox_json=BoundingBox(x=left, y=top, width=width, height=height).model_dump_json(),
        color_hex="#" + "".join(f"{round(float(value)):02x}" for value in colour),
        area_percent=round(100 * float(mask.mean()), 2),
    )


def _placed(detection: Detection) -> str:
    box, (height, width) = detection.entity.bbox, detection.mask.shape
    assert box is not None
    x, y = (box.x + box.width / 2) / width, (box.y + box.height / 2) / height
    place = place_name(x, y, box.width / width, box.height / height)
    where = "" if place == "all over" else "in the " if place == "middle" else "at the "
    return f"{detection.entity.label} {where}{place} ({round(detection.entity.area_percent or 0)} %)"
