"""The page of the photos in the inbox, each of which leads to the form that edits it, and of the newest edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from edi_storage.models import SessionData, UserFeedback
from flows import words
from flows.inbox import SUFFIXES
from flows.links import (
    ALREADY_THERE,
    CONTROL_ROOM,
    EDIT,
    INBOX,
    LEARNED,
    LIST,
    PREFIX,
    THUMBNAIL,
    edit_link,
    inbox_link,
    session_link,
)
from flows.names import cut
from flows.pages.document import TOLD, Watch, document, link, when

#: Photos of the inbox that are shown.
_IN_INBOX: Final = 200

#: Sends the chosen photos to the inbox, one after the other; meanwhile the page stays. One alone is then edited.
_UPLOAD: Final = (
    f"const INBOX = '{INBOX}', EDIT = '{EDIT}', THERE = {ALREADY_THERE};"
    + """
const input = document.querySelector('#add'), told = document.querySelector('#told');
input.addEventListener('change', async () => {
  held = true;
  let kept = '';
  let added = 0;
  const news = [];
  for (const file of input.files) {
    told.textContent = `Adding ${file.name} ...`;
    try {
      const name = encodeURIComponent(file.name);
      const answer = await fetch(`${INBOX}?name=${name}`, { method: 'PUT', body: file });
      kept = (await answer.text()).trim();
      if (!answer.ok) throw kept;
      added += answer.status !== THERE;
      if (answer.status === THERE) news.push(`${kept} was here already.`);
      else if (kept !== file.name) news.push(`Another photo is called ${file.name}, so this one is now ${kept}.`);
    } catch (why) {
      told.textContent = [...news, why].join(' ');
      input.value = '';
      held = false;
      return;
    }
  }
  if (input.files.length > 1) news.unshift(`${added} of ${input.files.length} photos were added.`);
  sessionStorage.setItem('told', news.join(' '));
  if (input.files.length === 1) location.assign(`${EDIT}?photo=${encodeURIComponent(kept)}`);
  else location.reload();
});
"""
)


def photos_page(
    sessions: Sequence[SessionData], said: Mapping[str, UserFeedback], inbox: Path, photos: Sequence[str], stands: str
) -> str:
    """The page. `said` is what a person has said of the sessions, by their ids; `stands` what LIST says."""
    elsewhere = [link(LEARNED, "What EDI has learned"), link(CONTROL_ROOM, "The control room: runs, logs, schedules")]
    body = [
        "<h1>EDI edits photos as you say it</h1>",
        "<p>Choose a photo, say in your own words what is to become of it, and look at it before and after.</p>",
        f'<p class="links">{" · ".join(elsewhere)}</p>',
        *_inbox(inbox, photos),
        *_listed(sessions, said),
    ]
    return document("Photos and edits", body, served=True, watch=Watch(PREFIX, LIST, stands), script=_UPLOAD)


def _inbox(inbox: Path, photos: Sequence[str]) -> list[str]:
    shown = [
        f'<figure><a href="{escape(edit_link(name))}"><img loading="lazy" src="{escape(inbox_link(name))}" '
        f'alt="{escape(name)}"><figcaption>{escape(name)}</figcaption></a></figure>'
        for name in photos[:_IN_INBOX]
    ]
    more = f" Of {len(photos)}, the first {_IN_INBOX} by name are shown." if len(photos) > _IN_INBOX else ""
    how = "Click on a photo to edit it, or " if photos else ""
    kinds = escape(",".join(SUFFIXES))
    add = (
        f'<p>{how}<label class="button">Add photos from this computer'
        f'<input type="file" id="add" multiple accept="{kinds}"></label> '
        f"or {link(edit_link(), 'name a file')} on the machine where EDI runs.</p>"
    )
    kept = f'<p class="soft">Photos that you add are kept in <code>{escape(str(inbox))}</code>.{more}</p>'
    grid = [f'<div class="grid inbox">{"".join(shown)}</div>'] if shown else []
    return ["<h2>Photos</h2>", add, TOLD, *grid, kept]


def _listed(sessions: Sequence[SessionData], said: Mapping[str, UserFeedback]) -> list[str]:
    rows = [
        f"<tr><td>{_small(one)}</td><td>{_asked(one)}</td>"
        f"<td>{escape(Path(one.image_path).name)}</td><td>{when(one.created_at)}</td>"
        f"<td>{escape(_stands(one))}</td><td>{_said(one, said.get(one.session_id))}</td></tr>"
        for one in sessions
    ]
    cells = ("", "what was asked for", "photo", "when", "how it stands", "what you said")
    head = "".join(f"<th>{cell}</th>" for cell in cells)
    table = (
        f'<div class="wide list"><table><tr>{head}</tr>{"".join(rows)}</table></div>' if rows else "<p>None yet.</p>"
    )
    return ["<h2>Edits, the newest first</h2>", table]


def _asked(session: SessionData) -> str:
    return link(session_link(session.session_id), cut(session.naive_prompt, 100))


def _said(session: SessionData, said: UserFeedback | None) -> str:
    """What a person has said of it, or where they say it."""
    if said is None and session.status == "completed":
        return link(f"{session_link(session.session_id)}#rate", "rate it")
    return escape(words.verdict(said))


def _small(session: SessionData) -> str:
    small = escape(session_link(session.session_id, THUMBNAIL))
    return f'<a href="{escape(session_link(session.session_id))}"><img loading="lazy" src="{small}" alt=""></a>'


def _stands(session: SessionData) -> str:
    score = session.final_alignment_score
    return words.standing(session) + (f", measured {words.fit(score)}" if score is not None else "")
