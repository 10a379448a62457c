"""What all of EDI's own pages share: their frame and look, and the small parts that they are put together from.

Everything a person wrote or an engine said is escaped, where it is put in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Final

#: Milliseconds between two looks whether a page that is open still says how things stand.
_LOOKS: Final = 1000

STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --mark: #2f7fd1; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.soft { opacity: .7; } figure { margin: 0; } img { display: block; width: 100%; border-radius: 6px; }
.slider { position: relative; margin-top: 1.2rem; }
.slider .after { position: absolute; inset: 0; clip-path: inset(0 0 0 50%); }
.slider input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.slider i { position: absolute; top: 0; bottom: 0; left: 50%; width: 2px; background: #fff; box-shadow: 0 0 3px #000; }
.slider i::after { content: "⟷"; position: absolute; top: 50%; left: 50%; transform: translate(-50%, -50%); color: #222;
  background: #fff; border-radius: 1rem; padding: 0 .5rem; font-style: normal; box-shadow: 0 0 4px #0008; }
.slider b { position: absolute; bottom: .6rem; padding: .1rem .6rem; border-radius: 1rem; }
.slider b { background: #000a; color: #fff; }
.wide { overflow-x: auto; } .wide table { min-width: 36rem; }
figure.small { max-width: 30rem; }
.grid .all { grid-column: span 2; grid-row: span 2; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; align-items: start; }
.grid.inbox img { aspect-ratio: 3 / 2; object-fit: contain; background: var(--line); }
.grid.inbox figcaption { overflow-wrap: anywhere; }
.list td:first-child { width: 7rem; padding-bottom: .35rem; }
.list img { aspect-ratio: 3 / 2; object-fit: contain; background: var(--line); }
details { margin-top: 2.2rem; } summary { cursor: pointer; font-weight: 600; }
.grid.wider { grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); margin-top: 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .35rem .8rem .35rem 0; vertical-align: top; }
tr + tr { border-top: 1px solid var(--line); }
form { max-width: 42rem; } form details { margin: 1rem 0; } form .field { display: block; margin: 1rem 0; }
form .field > b { display: block; } form small { display: block; opacity: .7; }
input, select, textarea, button { font: inherit; }
input[type=text], select, textarea { width: 100%; box-sizing: border-box; padding: .35rem .5rem; border-radius: 6px;
  border: 1px solid var(--line); }
a, a:visited { color: var(--mark); }
button:disabled { opacity: .5; cursor: progress; } .asked { opacity: .7; margin-left: 1rem; }
button { padding: .45rem 1.4rem; border: 0; border-radius: 6px; background: var(--mark); color: #fff; cursor: pointer; }
form.choices { max-width: none; } .choices .grid { align-items: stretch; }
.choices button { padding: .6rem; text-align: left; display: flex; flex-direction: column; }
.choices img { max-width: none; margin: 0 0 .4rem; }
.row { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; }
fieldset { border: 1px solid var(--line); border-radius: 6px; padding: .4rem 1.2rem 1rem; }
legend { font-weight: 600; padding: 0 .4rem; } form img { max-width: 20rem; margin-top: .8rem; }
.none { margin: 1rem 0; } .none button { background: none; color: inherit; border: 1px solid var(--line); }
.button { display: inline-block; padding: .45rem 1.4rem; border-radius: 6px; background: var(--mark); color: #fff;
  cursor: pointer; }
.button:focus-within { outline: 3px solid currentColor; outline-offset: 2px; }
.button input { position: absolute; opacity: 0; width: 1px; }
#told { font-weight: 600; } #told:empty { display: none; }
.key span { display: inline-block; margin-right: 1.4rem; white-space: nowrap; }
.key i { display: inline-block; width: 1.6rem; height: .7rem; margin-right: .4rem; border: 1px solid #8888; }
#rate, #said { scroll-margin-top: 45vh; } .standing strong { font-size: 1.15rem; }
.wrong { border-left: 6px solid #d6453d; padding-left: 1rem; font-weight: 600; }
"""

_SCRIPT: Final = """
const range = document.querySelector('.slider input');
range?.addEventListener('input', () => {
  document.querySelector('.after').style.clipPath = `inset(0 0 0 ${range.value}%)`;
  document.querySelector('.slider i').style.left = `${range.value}%`;
  sessionStorage.setItem(location.pathname, range.value);
});
// Where it was before the page was loaded anew.
if (range && sessionStorage.getItem(location.pathname)) {
  range.value = sessionStorage.getItem(location.pathname);
  range.dispatchEvent(new Event('input'));
}
// A form is sent once, however often its button is pressed; who comes back to it may send it again.
const wait = waiting => {
  document.querySelectorAll('form button').forEach(button => button.disabled = waiting);
  document.querySelectorAll('.asked').forEach(told => told.hidden = !waiting);
};
document.addEventListener('submit', event => setTimeout(() => {
  const told = event.target.querySelector('.asked') ?? event.target.appendChild(document.createElement('span'));
  told.className = 'asked';
  told.textContent = 'One moment ...';
  wait(true);
}));
addEventListener('pageshow', () => wait(false));
const happened = document.querySelector('#told');
if (happened) {
  happened.textContent = sessionStorage.getItem('told') ?? '';
  sessionStorage.removeItem('told');
}
for (const time of document.querySelectorAll('time'))
  time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
"""

#: Loads the page anew when what it shows has changed, unless it is `held`; asks on while no server answers.
_WATCH: Final = """
let asking = false, held = false;
setInterval(async () => {
  if (asking || held || document.hidden) return;
  asking = true;
  try {
    const answer = await fetch(ASKED, { cache: 'no-store' });
    if (answer.ok && (await answer.text()) !== STANDS && !held) {
      held = true;  // once: a page that takes long to come must not be asked for again
      // The answer to a form that was sent would be sent again.
      if (location.pathname === PAGE) location.reload();
      else location.replace(PAGE);
    }
  } catch { }
  asking = false;
}, LOOKS);
"""


#: Where a page says what has just happened to what was sent from it, or from the page before.
TOLD: Final = '<p id="told"></p>'


@dataclass(frozen=True)
class Watch:
    """How a page that is open learns that it is to be loaded anew: what `asked` answers is not `stands` any more."""

    page: str
    asked: str
    stands: str


def document(title: str, body: Iterable[str], *, served: bool, watch: Watch | None = None, script: str = "") -> str:
    """A whole page; `title` is plain text. It may fetch nothing from elsewhere, and in a file nothing at all.

    served: `edi serve` shows it, so that it has pictures and forms of its server, and may `watch` it.
    """
    own = " img-src data: 'self'; connect-src 'self'; form-action 'self'" if served else " img-src data:"
    whole = "\n".join(body)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';{own}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style></head>\n<body>\n{whole}\n"
        f"<script>{_SCRIPT}{_watching(watch)}{script}</script>\n</body></html>\n"
    )


def _watching(watch: Watch | None) -> str:
    if watch is None:
        return ""
    # A message may hold what a person wrote: none of it may end the script.
    page, asked, stands = (json.dumps(text).replace("<", "\\u003c") for text in (watch.page, watch.asked, watch.stands))
    return f"const PAGE = {page}, ASKED = {asked}, STANDS = {stands}, LOOKS = {_LOOKS};{_WATCH}"


def link(address: str, text: str) -> str:
    """A link."""
    return f'<a href="{escape(address)}">{escape(text)}</a>'


def beside(address: str, text: str) -> str:
    """A link that opens beside the page: a picture has no way back."""
    return f'<a href="{escape(address)}" target="_blank" rel="noopener">{escape(text)}</a>'


def lines(*listed: str) -> list[str]:
    """One paragraph, line by line."""
    return [f'<p class="links">{"<br>".join(listed)}</p>']


def when(moment: datetime) -> str:
    """A time that the browser turns into the person's own."""
    return f'<time datetime="{moment:%Y-%m-%dT%H:%MZ}">{moment:%Y-%m-%d %H:%M} UTC</time>'


def standing(headline: str) -> str:
    """How something stands; its first sentence is what one sees first."""
    first, end, rest = headline.partition(". ")
    return f'<p class="standing"><strong>{escape(first + end.rstrip())}</strong> {escape(rest)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text."""
    listed = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    listed += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return f'<div class="wide"><table>{"".join(f"<tr>{line}</tr>" for line in listed)}</table></div>'
