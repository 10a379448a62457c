"""Pictures to give away: encoded anew, so that nothing of their metadata is left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flows.engines.photo import decode_mask, decode_photo, encode, encode_mask


class CleanPictures:
    """Stored pictures without metadata; see `edi_storage.exports.Pictures`."""

    def photo(self, data: bytes) -> bytes:
        """A JPEG in sRGB, upright, at quality 95. Raises InputError for what cannot be decoded."""
        return encode(decode_photo(data).pixels, format="JPEG")

    def mask(self, data: Sequence[bytes]) -> bytes:
        """A PNG, white where any of the masks is."""
        return encode_mask(np.maximum.reduce([decode_mask(one) for one in data]))
