"""Opening and writing photos: every bad input is one sentence, every good one survives the round trip."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from edi_storage.errors import InputError
from flows.engines import photo as photos
from flows.engines.photo import (
    decode_mask,
    decode_photo,
    encode,
    encode_edited,
    encode_mask,
    export,
    open_photo,
)
from tests.engines.conftest import EXAMPLES, landscape
from tests.engines.profiles import ADOBE_RGB, DISPLAY_P3, matrix_profile


def saved(folder: Path, image: Image.Image, name: str, **options: object) -> Path:
    path = folder / name
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def refused(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        open_photo(path)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return sentence


def test_the_example_photo_opens() -> None:
    photo = open_photo(EXAMPLES / "palace.jpg")
    assert (photo.width, photo.height, photo.format) == (640, 427, "JPEG")
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.shape == (427, 640, 3)
    assert len(photo.sha256) == 64
    assert photo.data == (EXAMPLES / "palace.jpg").read_bytes()


def test_a_link_to_a_photo_opens(tmp_path: Path) -> None:
    link = tmp_path / "link.jpg"
    link.symlink_to(EXAMPLES / "palace.jpg")
    assert open_photo(link).width == 640


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no-such.jpg" in refused(tmp_path / "no-such.jpg")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert "empty" in refused(tmp_path / "empty.jpg")


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "pipe" in refused(tmp_path / "pipe.jpg")


def test_a_path_with_a_nul_is_refused() -> None:
    refused("photo\0.jpg")


def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    refused(tmp_path / "a.jpg")


def test_text_named_jpg_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("this is not a photo")
    assert "PNG, JPEG or WebP" in refused(tmp_path / "text.jpg")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "EPS"])
def test_other_formats_are_refused(tmp_path: Path, kind: str) -> None:
    refused(saved(tmp_path, Image.fromarray(landscape()), "photo.jpg", format=kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_cut_off_in_the_middle_is_refused(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, Image.fromarray(landscape()), "photo", format=kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path)


def test_a_flipped_byte_never_ends_in_another_error(tmp_path: Path) -> None:
    good = encode(landscape(64, 64))
    random = np.random.default_rng(5)
    for position in random.integers(8, len(good), 60):
        damaged = bytearray(good)
        damaged[position] ^= 0x55
        (tmp_path / "photo.png").write_bytes(damaged)
        with contextlib.suppress(InputError):  # any other exception fails the test
            open_photo(tmp_path / "photo.png")


def test_a_picture_of_a_billion_pixels_is_refused_from_its_header(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    body = zlib.compress(b"\0" * 100)
    data += struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    (tmp_path / "bomb.png").write_bytes(data)
    assert "million pixels" in refused(tmp_path / "bomb.png")


def test_a_picture_that_only_warns_of_a_bomb_is_refused_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    assert "million pixels" in refused(saved(tmp_path, Image.fromarray(landscape()), "large.png"))


def test_a_file_above_the_byte_limit_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(photos, "MAX_BYTES", 1000)
    assert "larger than" in refused(EXAMPLES / "palace.jpg")


def test_a_tiny_picture_is_refused(tmp_path: Path) -> None:
    assert "1x1" in refused(saved(tmp_path, Image.new("RGB", (1, 1)), "dot.png"))
    assert "15x200" in refused(saved(tmp_path, Image.new("RGB", (15, 200)), "strip.png"))


def test_orientation_is_applied_once_and_reset(tmp_path: Path) -> None:
    image = Image.fromarray(landscape())
    exif = image.getexif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    photo = open_photo(saved(tmp_path, image, "turned.jpg", exif=exif))
    assert (photo.width, photo.height) == (240, 320)
    assert photo.exif is not None
    again = Image.open(io.BytesIO(encode(photo.pixels, None, None, "JPEG", photo.exif)))
    assert again.size == (240, 320)
    assert again.getexif().get(0x0112, 1) == 1
    assert again.getexif()[0x010F] == "Maker"


def test_sixteen_bit_grey_keeps_its_middle(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    photo = open_photo(saved(tmp_path, Image.fromarray(ramp), "deep.png"))
    assert photo.pixels[0, 0, 0] == 0
    assert photo.pixels[-1, -1, 0] == 255
    assert abs(int(photo.pixels[32, 0, 1]) - 128) <= 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb_of_the_same_look(tmp_path: Path, mode: str) -> None:
    source = Image.fromarray(landscape())
    image = source.convert(mode)
    name = "photo.jpg" if mode == "CMYK" else "photo.png"
    photo = open_photo(saved(tmp_path, image, name))
    expected = np.asarray(image.convert("RGB"), dtype=int)
    assert photo.pixels.shape == (240, 320, 3)
    assert np.abs(photo.pixels.astype(int) - expected).mean() < 4
    assert (photo.alpha is not None) == (mode in ("LA", "RGBA"))


def test_transparency_of_a_palette_is_kept(tmp_path: Path) -> None:
    image = Image.fromarray(landscape()).convert("P")
    photo = open_photo(saved(tmp_path, image, "palette.png", transparency=int(np.asarray(image)[0, 0])))
    assert photo.alpha is not None
    assert photo.alpha[0, 0] == 0
    assert photo.alpha.max() == 255


def test_alpha_comes_back_in_png_and_webp() -> None:
    pixels = landscape()
    alpha = np.full(pixels.shape[:2], 255, np.uint8)
    alpha[:50] = 0
    for kind in ("PNG", "WEBP"):
        image = Image.open(io.BytesIO(encode(pixels, alpha, None, kind)))
        assert np.array_equal(np.asarray(image)[..., 3], alpha)


def test_a_png_of_pixels_has_those_pixels() -> None:
    pixels = landscape()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode(pixels)))), pixels)


def test_a_colour_profile_is_kept(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = open_photo(saved(tmp_path, Image.fromarray(landscape()), "photo.jpg", icc_profile=profile))
    assert photo.icc_profile == profile
    written = Image.open(io.BytesIO(encode(photo.pixels, None, photo.icc_profile, "JPEG")))
    assert written.info["icc_profile"] == profile


def test_an_animation_is_its_first_frame_and_says_so(tmp_path: Path) -> None:
    first, second = Image.fromarray(landscape()), Image.new("RGB", (320, 240))
    path = saved(tmp_path, first, "moving.webp", save_all=True, append_images=[second], lossless=True)
    photo = open_photo(path)
    assert np.array_equal(photo.pixels, landscape())
    assert photo.notes == ("animated: only its first frame is edited",)


def test_a_mask_survives_its_png() -> None:
    mask = np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64)
    again = decode_mask(encode_mask(mask))
    assert again.dtype == np.float32
    assert again.shape == (48, 64)
    assert float(np.abs(again - mask).max()) <= 0.5 / 255 + 1e-6


def test_a_damaged_mask_is_one_sentence() -> None:
    with pytest.raises(InputError, match="mask"):
        decode_mask(b"not a png")


@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB])
def test_a_photo_in_a_larger_space_is_seen_as_srgb_and_kept_as_it_is(tmp_path: Path, primaries: Any) -> None:
    profile = matrix_profile(primaries)
    own = landscape()
    own[:40] = (20, 250, 30)  # a green that sRGB does not hold
    photo = open_photo(saved(tmp_path, Image.fromarray(own), "wide.png", icc_profile=profile))
    assert photo.own is not None
    assert np.array_equal(photo.own, own)
    wanted = ImageCms.profileToProfile(Image.fromarray(own), io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    assert np.abs(photo.pixels[60:].astype(int) - np.asarray(wanted)[60:]).max() <= 2
    # Nothing edited: the same picture again. Edited: only there, and by as much.
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_edited(photo, photo.pixels)))), own)
    edited = photo.pixels.copy()
    edited[120:] = edited[120:] // 2
    again = decode_photo(encode_edited(photo, edited))
    assert again.icc_profile == profile
    assert again.own is not None
    assert np.array_equal(again.own[:120], own[:120])
    assert np.abs(again.pixels[120:].astype(int) - edited[120:]).max() <= 6
    assert np.abs(again.pixels[120:].astype(int) - edited[120:]).mean() < 1


def test_an_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = open_photo(saved(tmp_path, Image.fromarray(landscape()), "photo.png", icc_profile=profile))
    assert (photo.own, photo.icc_profile) == (None, profile)
    assert np.array_equal(photo.pixels, landscape())


def test_a_damaged_profile_is_left_out_and_told(tmp_path: Path) -> None:
    profile = matrix_profile(DISPLAY_P3)[:200]
    photo = open_photo(saved(tmp_path, Image.fromarray(landscape()), "photo.png", icc_profile=profile))
    assert (photo.icc_profile, photo.own) == (None, None)
    assert photo.notes == ("its colour profile is damaged: the colours are taken as sRGB",)


def test_sixteen_bits_a_channel_are_told(tmp_path: Path) -> None:
    body = b"".join(b"\0" + struct.pack(">96H", *([40_000, 20_000, 65_535] * 32)) for _ in range(32))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(body)),
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in chunks
    )
    (tmp_path / "deep.png").write_bytes(data)
    photo = open_photo(tmp_path / "deep.png")
    assert np.abs(photo.pixels[0, 0].astype(int) - (156, 78, 255)).max() <= 1
    assert photo.notes == ("16 bits a channel: it is edited and written with 8",)


def full_of_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x8298] = "Maker", "Camera 5", "(c) Somebody"
    exif[0x010E], exif[0x013B] = "taken at home", "An Owner"
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0)}
    taken = exif.get_ifd(0x8769)
    taken.update({0x829A: 0.004, 0x9003: "2024:05:06 07:08:09", 0xA434: "Lens 35"})
    taken.update({0xA430: "An Owner", 0xA431: "serial 17", 0x9286: b"ASCII\0\0\0at home", 0x927C: b"secret notes"})
    return exif


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_export_tells_how_a_photo_was_taken_and_nothing_private(tmp_path: Path, kind: photos.PhotoFormat) -> None:
    photo = open_photo(saved(tmp_path, Image.fromarray(landscape()), "photo.jpg", exif=full_of_exif()))
    data = export(encode(photo.pixels), kind, photo.exif)
    for private in (b"at home", b"Owner", b"serial", b"secret"):
        assert private not in data
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        found = image.getexif()
        assert (found[0x010F], found[0x8298]) == ("Maker", "(c) Somebody")
        taken = found.get_ifd(0x8769)
        assert (taken[0x9003], taken[0xA434], float(taken[0x829A])) == ("2024:05:06 07:08:09", "Lens 35", 0.004)
        assert not found.get_ifd(0x8825)
        assert np.abs(np.asarray(image).astype(int) - photo.pixels).mean() < 2
    assert Image.open(io.BytesIO(export(encode(photo.pixels), kind))).getexif() == {}


def test_a_jpeg_shows_white_where_the_photo_was_transparent() -> None:
    alpha = np.full((240, 320), 255, np.uint8)
    alpha[:50] = 0
    shown = np.asarray(Image.open(io.BytesIO(export(encode(landscape(), alpha), "JPEG"))))
    assert shown[:40].min() > 250
    assert np.abs(shown[60:].astype(int) - landscape()[60:]).mean() < 3
