"""The analyzer of the extra `sam`, with tiny models of random weights: what it finds is noise, how it does it is real.

Skipped where torch and transformers are not installed: `pip install '.[sam]'`.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edi_storage.errors import InputError
from flows import engines
from flows.engines.backends import Backends
from flows.engines.base import Mask
from flows.engines.segment_anything import THINGS, SegmentAnythingAnalyzer, _Found, _scene, found_in, things_of
from tests.engines.conftest import landscape


def test_each_token_belongs_to_the_thing_it_is_a_part_of() -> None:
    text = " ".join(f"{thing}." for thing in THINGS)
    start = text.index("vegetation")
    offsets = [(0, 0), (0, 3), (3, 4), (start, start + 4), (start + 4, start + 10), (len(text) - 1, len(text)), (0, 0)]
    assert things_of(offsets) == [-1, 0, -1, 1, 1, -1, -1]
    for number, thing in enumerate(THINGS):
        where = f" {text}".index(f" {thing}.")
        assert things_of([(where, where + len(thing))]) == [number]


def test_a_box_takes_the_name_of_its_best_token_and_stays_in_the_picture() -> None:
    scores = np.array([[0.1, 0.9, 0.2], [0.05, 0.1, 0.6], [0.9, 0.2, 0.2]])
    boxes = np.array([[0.5, 0.25, 1.2, 0.5], [0.5, 0.75, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    sky, tree = found_in(scores, boxes, [-1, 0, 2], 200, 100)
    assert (sky.label, sky.certainty, sky.box) == ("sky", 0.9, (0.0, 0.0, 200.0, 50.0))
    assert (tree.label, tree.box) == ("tree", (50.0, 50.0, 150.0, 100.0))


def test_things_found_twice_and_specks_are_left_out_and_ids_are_unique_largest_first() -> None:
    def square(side: int, at: int = 0) -> Mask:
        mask = np.zeros((100, 100), np.float32)
        mask[at : at + side, at : at + side] = 1
        return mask

    things = [
        _Found("dog", 0.9, (0, 0, 40, 40)),
        _Found("cat", 0.8, (0, 0, 40, 40)),
        _Found("dog", 0.7, (50, 50, 99, 99)),
    ]
    masks = [square(40), square(39), square(49, 50)]
    scene = _scene(landscape(100, 100), [*things, _Found("bird", 0.6, (99, 99, 100, 100))], [*masks, square(2, 98)])
    assert [d.entity.entity_id for d in scene.detections] == ["dog_0", "dog_1"]
    assert [d.entity.area_percent for d in scene.detections] == [24.01, 16.0]
    assert scene.spatial_layout.startswith("Dog ")


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.engines.segment_anything.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'edi-edit\[sam\]'"):
        engines.analyzer("sam", Backends()).analyze(landscape())


# --- With the models ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Backends:
    """Tiny models of random weights, saved as a person would have theirs."""
    pytest.importorskip("torch", reason="torch is not installed: pip install '.[sam]'")
    pytest.importorskip("transformers", reason="transformers is not installed: pip install '.[sam]'")
    folder = tmp_path_factory.mktemp("models")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, not ours
        _save_sam(folder / "sam")
        _save_dino(folder / "dino")
    return Backends(sam_model=folder / "sam", grounding_model=folder / "dino")


def _save_sam(folder: Path) -> None:
    import torch
    from transformers import Sam2Config, Sam2Model

    torch.manual_seed(0)
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 12,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [12, 24, 48, 96],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "global_attention_blocks": [3],
        "window_size_per_stage": [8, 4, 4, 4],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [96, 48, 24, 12],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 16},
        mask_decoder_config=decoder,
    )
    Sam2Model(config).save_pretrained(folder)


def _save_dino(folder: Path) -> None:
    import torch
    from transformers import BertTokenizerFast, GroundingDinoConfig, GroundingDinoForObjectDetection

    torch.manual_seed(1)
    # The model knows the ids of BERT's special tokens: 101, 102, and 1012 for the dot.
    words = [f"[unused{number}]" for number in range(1040)]
    words[0], words[100], words[101], words[102], words[1012] = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "."
    words[200 : 200 + len(THINGS)] = THINGS
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    config = GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "embed_dim": 12,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 1, 1],
            "image_size": 64,
            "out_features": ["stage2", "stage3", "stage4"],
        },
        text_config={
            "model_type": "bert",
            "vocab_size": len(words),
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=20,
        disable_custom_kernels=True,
    )
    model = GroundingDinoForObjectDetection(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)


def analyzed(backends: Backends) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SegmentAnythingAnalyzer(backends).analyze(landscape(96, 128))


def test_the_same_photo_has_the_same_entities_and_masks_bit_for_bit(models: Backends) -> None:
    one, two = analyzed(models), analyzed(models)
    assert one.detections
    assert [d.entity for d in one.detections] == [d.entity for d in two.detections]
    assert all((a.mask == b.mask).all() for a, b in zip(one.detections, two.detections, strict=True))
    assert one.spatial_layout == two.spatial_layout
    for detection in one.detections:
        assert detection.entity.label in THINGS
        assert detection.mask.shape == (96, 128)
        assert detection.mask.dtype == np.float32
        assert 0 <= detection.mask.min() <= detection.mask.max() <= 1
    assert SegmentAnythingAnalyzer(models).version == "1 (dino, sam)"


def test_what_is_missing_is_named(models: Backends, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="EDI_SAM_MODEL is not set"):
        analyzed(replace(models, sam_model=None))
    with pytest.raises(InputError, match=r"EDI_GROUNDING_MODEL is .*but there is no model"):
        analyzed(replace(models, grounding_model=tmp_path))


def test_weights_that_are_none_are_told_of_in_one_sentence(models: Backends, tmp_path: Path) -> None:
    assert models.sam_model is not None
    (tmp_path / "config.json").write_bytes((models.sam_model / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"EDI_SAM_MODEL is .*cannot be loaded as Sam2Model") as failed:
        analyzed(replace(models, sam_model=tmp_path))
    assert len(str(failed.value).splitlines()) == 1


def test_without_its_models_the_embedded_analyzer_takes_over() -> None:
    engine = engines.analyzer("sam,embedded", Backends())
    assert engine.analyze(landscape(96, 128)).detections
    assert engine.name == "embedded"
    assert engine.warnings[0].startswith("embedded was used instead of sam: EDI_ANALYZER is sam, but")  # type: ignore[attr-defined]
