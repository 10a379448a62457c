"""What a person sees of a session in the Prefect UI."""

from __future__ import annotations

import re

from prefect.artifacts import create_markdown_artifact

from edi_storage.state import rows_of
from flows.engines.photo import decode_photo
from flows.pictures import data_uri
from flows.session import SessionRun

#: Pixels of the longer side of an inlined picture: sharp enough to judge, small enough for the server's database.
_THUMBNAIL = 480


def show_session(run: SessionRun) -> None:
    """Publish the session as one markdown artifact; the next version of the same session replaces it."""
    key = "session-" + re.sub(r"[^a-z0-9]+", "-", run.session.session_id.lower()).strip("-")
    create_markdown_artifact(_markdown(run), key=key, description=f"{run.session.naive_prompt}")


def _markdown(run: SessionRun) -> str:
    rows = rows_of(run.state)
    parts = [f"# {run.session.naive_prompt}", _pictures(run)]
    if rows.entities:
        parts += ["## Found", "| entity | confidence | area | colour |\n|---|---|---|---|"]
        parts[-1] += "".join(
            f"\n| {e.entity_id} | {e.confidence:.2f} | {e.area_percent or 0:.0f} % | {e.color_hex or ''} |"
            for e in rows.entities
        )
    if rows.validations:
        parts += ["## Attempts", "| attempt | alignment | preserved | modified | unintended |\n|---|---|---|---|---|"]
        parts[-1] += "".join(
            f"\n| {v.attempt_number} | {v.alignment_score:.2f} | {v.preserved_count} "
            f"| {v.modified_count} | {v.unintended_count} |"
            for v in rows.validations
        )
    if run.restored:
        parts.append("Restored, not run again: " + ", ".join(step.label for step in run.restored) + ".")
    parts.append(f"Rate it: run `record-feedback` with session id `{run.session.session_id}`.")
    return "\n\n".join(parts)


def _pictures(run: SessionRun) -> str:
    if "image" not in run.state.get("scene_analysis", {}):
        return ""
    before = data_uri(run.photo.pixels, _THUMBNAIL)
    edited = run.state.get("edited_image_path")
    after = data_uri(decode_photo(run.store.files.read(edited)).pixels, _THUMBNAIL) if edited else ""
    return f"| before | after |\n|---|---|\n| ![before]({before}) | {f'![after]({after})' if after else 'not yet'} |"
