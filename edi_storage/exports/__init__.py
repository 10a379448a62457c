"""Data sets of what people preferred, for training elsewhere: of sessions that may be shared, without names."""

from edi_storage.exports.export import Exported, Pictures, export
from edi_storage.exports.formats import FORMATS, Format

__all__ = ["FORMATS", "Exported", "Format", "Pictures", "export"]
