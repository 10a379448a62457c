"""Makes a lost picture of a session again: the engines give the same bytes for the same input."""

from __future__ import annotations

from edi_storage.errors import EngineError
from edi_storage.models import Artifact, Intent, Operation, SceneAnalysis, SessionState
from edi_storage.state import Json, rows_of
from edi_storage.store import Store
from flows import engines
from flows.engines.area import with_region
from flows.engines.base import Mask
from flows.engines.comparing import compare
from flows.engines.heat import delta_picture
from flows.engines.operations import apply
from flows.engines.photo import Photo, decode_mask, decode_photo, encode, encode_edited, encode_mask
from flows.engines.wishes import Wishes, to_measure
from flows.words import deltas_of


def remake(store: Store, session_id: str, artifact: Artifact) -> None:
    """Store the picture again. Raises EdiError when what comes out is not the same, byte for byte."""
    state = store.database.get_state(session_id)
    assert state is not None
    photo = decode_photo(store.files.read(state.scene_analysis["image"]["path"]), state.image_path)
    if artifact.kind == "mask":
        data = _mask(store, state, photo, artifact)
    else:
        number, _, variation = artifact.name.removeprefix("attempt_").partition("_variation_")
        attempt = state.validation["attempts"][number]
        make = _delta if artifact.kind == "delta" else _edited
        data = make(store, state, photo, attempt["variations"][int(variation) - 1] if variation else attempt)
    if store.files.put(session_id, data, ".png") != artifact.path:
        raise EngineError("the engines of this version make another picture")


def _mask(store: Store, state: SessionState, photo: Photo, artifact: Artifact) -> bytes:
    if artifact.name == "given":
        raise EngineError("the mask was painted by a person")
    wishes = Wishes.of(state.scene_analysis.get("options", {}))
    path = state.scene_analysis["image"].get("mask")
    painted = decode_mask(store.files.read(path)) if path else None
    scene = with_region(engines.analyzer().analyze(photo.pixels), wishes.region, photo.pixels, painted)
    for found in scene.detections:
        if found.entity.entity_id == artifact.name:
            return encode_mask(found.mask)
    raise EngineError(f"the engines of this version find no {artifact.name}")


def _edited(store: Store, state: SessionState, photo: Photo, attempt: Json) -> bytes:
    operations = [Operation.model_validate(operation) for operation in attempt["operations"]]
    return encode_edited(photo, apply(photo.pixels, _masks(store, state), operations))


def _delta(store: Store, state: SessionState, photo: Photo, attempt: Json) -> bytes:
    edited = decode_photo(store.files.read(attempt["edited_image_path"]))
    scene = SceneAnalysis(entities=rows_of(state.model_dump(mode="json")).entities, spatial_layout="")
    _, masks = to_measure(scene, _masks(store, state), Intent.model_validate(state.intent))
    return encode(delta_picture(compare(photo.pixels, edited.pixels), masks, deltas_of(attempt)))


def _masks(store: Store, state: SessionState) -> dict[str, Mask]:
    return {
        entity["entity_id"]: decode_mask(store.files.read(entity["mask_path"]))
        for entity in state.scene_analysis["entities"]
        if entity.get("mask_path")
    }
