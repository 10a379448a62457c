"""Photos in and out: a file becomes upright RGB pixels once, safely, and edited pixels become a file again."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edi_storage.errors import InputError
from flows.engines.base import Mask, Pixels
from flows.engines.metadata import harmless_exif, has_deep_channels, png_with_exif
from flows.engines.profiles import as_srgb_picture, to_own, to_srgb

PhotoFormat = Literal["PNG", "JPEG", "WEBP"]
Alpha = NDArray[np.uint8]

#: Other formats are refused by name: Pillow's EPS reader, for one, starts another program.
FORMATS: Final[tuple[PhotoFormat, ...]] = ("PNG", "JPEG", "WEBP")
SUFFIXES: Final[dict[PhotoFormat, str]] = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
MAX_BYTES: Final = 200 * 1024 * 1024
MIN_SIDE: Final = 16
#: A JPEG stores EXIF in one segment of at most 65,533 bytes; a larger block could not be written back.
_MAX_EXIF: Final = 65_000


@dataclass(frozen=True)
class Photo:
    """One opened photo.

    `pixels` are RGB uint8, height x width x 3, upright, sRGB. Where the photo is in another colour space, `own` are its
    pixels in that, the one of `icc_profile`. `alpha` is uint8, height x width, or None. `exif` is what may be told of
    it (see `metadata`), without orientation, because the pixels are upright already. `data` are the bytes of the file
    as they were and `sha256` their digest.
    """

    pixels: Pixels
    own: Pixels | None
    alpha: Alpha | None
    icc_profile: bytes | None
    exif: bytes | None
    format: PhotoFormat
    sha256: str
    data: bytes
    #: What was left out on opening, in words for the person ("animated: only its first frame is edited").
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Width in pixels, upright."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels, upright."""
        return int(self.pixels.shape[0])


def open_photo(path: str | os.PathLike[str]) -> Photo:
    """Open a PNG, JPEG or WebP file; raise InputError with one sentence for anything that is not a usable photo."""
    return decode_photo(_read(path), str(path))


def decode_photo(data: bytes, name: str = "the photo") -> Photo:
    """Decode the bytes of a photo; `name` is what error messages call it. Raises InputError."""
    image, notes = _load(data, name)
    if image.format not in FORMATS:
        raise InputError(f"{name} is a {image.format} file; EDI opens PNG, JPEG and WebP.")
    kind: PhotoFormat = image.format
    if has_deep_channels(data):
        notes.append("16 bits a channel: it is edited and written with 8")
    upright, exif = _upright(image)
    if min(upright.size) < MIN_SIDE:
        width, height = upright.size
        raise InputError(f"{name} is only {width}x{height} pixels; use a photo of at least {MIN_SIDE}x{MIN_SIDE}.")
    pixels, alpha, icc = _to_rgb(upright)
    own: Pixels | None = None
    if icc is not None:
        try:
            converted = to_srgb(pixels, icc)
        except ValueError:
            icc = None
            notes.append("its colour profile is damaged: the colours are taken as sRGB")
        else:
            pixels, own = (pixels, None) if converted is None else (converted, pixels)
    return Photo(pixels, own, alpha, icc, exif, kind, hashlib.sha256(data).hexdigest(), data, tuple(notes))


def _read(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file, never waiting on a pipe or a device, never more than MAX_BYTES."""
    # A link to a photo is legitimate, so links are followed first; O_NOFOLLOW then refuses one that was
    # put in place afterwards, and O_NONBLOCK keeps a named pipe from hanging the open.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        resolved = Path(path).expanduser().resolve(strict=True)
        descriptor = os.open(resolved, flags | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        raise InputError(f"There is no file {path}; check the path.") from None
    except PermissionError:
        raise InputError(f"{path} may not be read; check its permissions.") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be opened ({_reason(error)}); give the path of a photo.") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a folder; give the path of one photo.")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is a pipe or a device, not a file; give the path of a photo.")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if not data:
        raise InputError(f"{path} is empty; give the path of a photo.")
    if len(data) > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES // 2**20} MB; save a smaller copy of it and use that.")
    return data


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".").lower()


def _load(data: bytes, name: str) -> tuple[Image.Image, list[str]]:
    """Decode the first frame completely, so that a file cut off in the middle is refused here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            frames = int(getattr(image, "n_frames", 1))
            image.seek(0)
            image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise InputError(f"{name} has more than {limit} million pixels; save a smaller copy of it.") from None
    except UnidentifiedImageError:
        raise InputError(f"{name} is not a photo that EDI can open; use a PNG, JPEG or WebP file.") from None
    except MemoryError:
        raise InputError(f"{name} is too large for the memory of this machine; save a smaller copy of it.") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged data: OSError, SyntaxError, struct.error
        raise InputError(f"{name} is damaged or cut off ({_reason(error)}); get a whole copy of it.") from None
    return image, ["animated: only its first frame is edited"] if frames > 1 else []


def _upright(image: Image.Image) -> tuple[Image.Image, bytes | None]:
    """The picture turned as its EXIF orientation says, and what may be told of its EXIF."""
    try:
        exif = harmless_exif(image)
    except Exception:  # noqa: BLE001 - EXIF of cameras is often malformed, and a photo is worth more than its EXIF
        exif = None
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # noqa: BLE001 - as above
        return image, None
    return image, exif if exif is None or len(exif) <= _MAX_EXIF else None


def _to_rgb(image: Image.Image) -> tuple[Pixels, Alpha | None, bytes | None]:
    """RGB pixels, alpha and the profile that describes the RGB pixels, from any mode Pillow decodes."""
    profile = image.info.get("icc_profile") or None
    if profile is not None and profile[16:20] != b"RGB ":
        image, profile = as_srgb_picture(image, profile), None
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep_gray(image), None, profile
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        both = np.asarray(image.convert("RGBA"))
        return np.ascontiguousarray(both[..., :3]), np.ascontiguousarray(both[..., 3]), profile
    return np.array(image if image.mode == "RGB" else image.convert("RGB")), None, profile


def _from_deep_gray(image: Image.Image) -> Pixels:
    """16-bit grey to 8-bit RGB. Pillow's own conversion clips at 255 instead of scaling."""
    gray = np.clip(np.asarray(image).astype(np.float64) / 257.0, 0, 255)
    return np.repeat(np.round(gray).astype(np.uint8)[..., None], 3, axis=2)


def encode_edited(photo: Photo, pixels: Pixels) -> bytes:
    """The PNG of an edit of `photo`: `pixels` are sRGB, the file is in the photo's own colours, with its alpha."""
    if photo.own is not None and photo.icc_profile is not None:
        pixels = to_own(pixels, photo.pixels, photo.own, photo.icc_profile)
    alpha = photo.alpha if photo.alpha is not None and photo.alpha.shape == pixels.shape[:2] else None
    return encode(pixels, alpha, photo.icc_profile)


def export(data: bytes, format: PhotoFormat, exif: bytes | None = None) -> bytes:
    """A stored PNG as a file to give away: in another format, and with an EXIF block."""
    if format == "PNG":
        return data if exif is None else png_with_exif(data, exif)
    photo = decode_photo(data)
    pixels = photo.pixels if photo.own is None else photo.own
    if format == "JPEG" and photo.alpha is not None:
        pixels = _on_white(pixels, photo.alpha)
    return encode(pixels, photo.alpha, photo.icc_profile, format, exif)


def _on_white(pixels: Pixels, alpha: Alpha) -> Pixels:
    """What shows through is white: JPEG has no transparency, and the colours below it are not meant to be seen."""
    share = alpha[..., None].astype(np.float32) / np.float32(255)
    return np.asarray(np.rint(255 - share * (255 - pixels.astype(np.float32))), dtype=np.uint8)


def encode(
    pixels: Pixels,
    alpha: Alpha | None = None,
    icc_profile: bytes | None = None,
    format: PhotoFormat = "PNG",
    exif: bytes | None = None,
) -> bytes:
    """The bytes of a picture file: PNG without loss, JPEG and WebP at quality 95. JPEG has no place for `alpha`."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if alpha is not None and format != "JPEG":
        image.putalpha(Image.fromarray(alpha))
    options: dict[str, object] = {"icc_profile": icc_profile}
    if exif is not None:
        options["exif"] = exif
    match format:
        case "PNG":
            # On photos three times as fast as the default, and no larger: sensor noise repeats nothing but runs.
            options |= {"compress_level": 1, "compress_type": zlib.Z_RLE}
        case "JPEG":
            options |= {"quality": 95, "subsampling": 0}
        case "WEBP":
            options |= {"quality": 95, "exact": True}
    buffer = io.BytesIO()
    try:
        image.save(buffer, format, **options)
    except (OSError, ValueError) as error:
        size = f"{image.width}x{image.height}"
        raise InputError(f"A picture of {size} pixels cannot be written as {format}: {_reason(error)}.") from error
    return buffer.getvalue()


def encode_mask(mask: Mask) -> bytes:
    """A mask (0..1) as an 8-bit greyscale PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.round(np.clip(mask, 0, 1) * 255).astype(np.uint8)).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def decode_mask(data: bytes) -> Mask:
    """The mask in a PNG made by `encode_mask`; raises InputError for anything else."""
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        image.load()
    except Exception as error:
        raise InputError(f"A stored mask cannot be read ({_reason(error)}).") from error
    return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)
