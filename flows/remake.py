"""Makes a lost picture of a session again: the engines give the same bytes for the same input."""

from __future__ import annotations

from edi_storage.errors import EngineError
from edi_storage.models import Artifact, Operation, SessionState
from edi_storage.store import Store
from flows import engines
from flows.engines.area import with_region
from flows.engines.base import Mask
from flows.engines.operations import apply
from flows.engines.photo import Photo, decode_mask, decode_photo, encode_edited, encode_mask
from flows.engines.wishes import Wishes


def remake(store: Store, session_id: str, artifact: Artifact) -> None:
    """Store the picture again. Raises EdiError when what comes out is not the same, byte for byte."""
    state = store.database.get_state(session_id)
    assert state is not None
    photo = decode_photo(store.files.read(state.scene_analysis["image"]["path"]), state.image_path)
    data = _mask(store, state, photo, artifact) if artifact.kind == "mask" else _edited(store, state, photo, artifact)
    if store.files.put(session_id, data, ".png") != artifact.path:
        raise EngineError("the engines of this version make another picture")


def _mask(store: Store, state: SessionState, photo: Photo, artifact: Artifact) -> bytes:
    wishes = Wishes.of(state.scene_analysis.get("options", {}))
    path = state.scene_analysis["image"].get("mask")
    painted = decode_mask(store.files.read(path)) if path else None
    scene = with_region(engines.analyzer().analyze(photo.pixels), wishes.region, photo.pixels, painted)
    for found in scene.detections:
        if found.entity.entity_id == artifact.name:
            return encode_mask(found.mask)
    raise EngineError(f"the engines of this version find no {artifact.name}")


def _edited(store: Store, state: SessionState, photo: Photo, artifact: Artifact) -> bytes:
    number = artifact.name.removeprefix("attempt_")
    recorded = state.validation["attempts"][number]["operations"]
    operations = [Operation.model_validate(operation) for operation in recorded]
    masks: dict[str, Mask] = {
        entity["entity_id"]: decode_mask(store.files.read(entity["mask_path"]))
        for entity in state.scene_analysis["entities"]
        if entity.get("mask_path")
    }
    return encode_edited(photo, apply(photo.pixels, masks, operations))
