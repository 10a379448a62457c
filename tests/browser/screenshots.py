"""Pictures of the UI as a person sees it: `python -m tests.browser.screenshots FOLDER`.

Starts an `edi serve` of its own and lives one person's story: the form, the page of a run, the artifact of its session,
EDI's own page of it, the dialog of a run that waits, what was learned, a run that was killed and healed, and the page
of all photos and edits, with the form that it leads to. Nine PNG files.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.browser.chromium import chromium, missing
from tests.browser.conftest import announced
from tests.browser.healing import kill_and_heal
from tests.browser.photos import large_photo
from tests.browser.ui import STARS, VERDICT, Ui, shown
from tests.flows.conftest import PALACE
from tests.flows.control import Control, serving

#: Milliseconds after which Prefect's graph is drawn.
_DRAWN = 4000


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, serving(Path(home)) as served, chromium() as (page, _):
        ui = Ui(page, announced(served))
        _edit(ui, folder)
        _dialog(ui, folder)
        _learned(ui, folder)
        _healed(ui, folder, served)
        _photos(ui, folder, served)


def _shoot(ui: Ui, folder: Path, name: str) -> None:
    # Notes that pop up would lie on top.
    ui.page.get_by_role("link", name="View run").wait_for(state="hidden")
    # Prefect's graph is drawn bit by bit.
    ui.page.wait_for_timeout(_DRAWN)
    ui.page.screenshot(path=folder / f"{name}.png", animations="disabled")
    sys.stdout.write(f"{folder / name}.png\n")


def _edit(ui: Ui, folder: Path) -> None:
    ui.fill_edit(str(PALACE), "make the sky dramatic", judge="auto")
    ui.main.evaluate("page => page.scrollTo(0, 0)")
    _shoot(ui, folder, "form")
    run = ui.submit()
    ui.wait_for_state("Completed")
    ui.open_run(run)  # loaded anew, it has the last lines too
    ui.tab("Logs").get_by_text("Done: ").wait_for()
    _shoot(ui, folder, "run")
    artifact = ui.open_artifact("make the sky dramatic")
    shown(artifact, "after")
    _shoot(ui, folder, "artifact")
    ui.page.goto(f"{ui.address}/edi/{run}")
    shown(ui.page.locator("body"), "after")
    _shoot(ui, folder, "page")


def _dialog(ui: Ui, folder: Path) -> None:
    ui.fill_edit(str(PALACE), "make it warmer", judge="ask")
    ui.submit()
    ui.wait_for_state("Suspended")
    dialog = ui.open_dialog()
    shown(dialog, "after")
    _shoot(ui, folder, "dialog")
    ui.choose(VERDICT, "accept", dialog)
    ui.fill(STARS, "4", dialog)
    ui.send_dialog(dialog)
    ui.wait_for_state("Completed")


def _learned(ui: Ui, folder: Path) -> None:
    ui.quick_run("learn-from-feedback")
    ui.wait_for_state("Completed")
    ui.open_artifact("learned").get_by_role("row").first.wait_for()
    _shoot(ui, folder, "learned")


def _healed(ui: Ui, folder: Path, served: Control) -> None:
    with tempfile.TemporaryDirectory() as photos:
        ui.fill_edit(str(large_photo(Path(photos))), "make the sky stormy", judge="auto")
        run = ui.submit()
        kill_and_heal(ui, served, run)
    ui.open_run(run)
    ui.tab("Logs").get_by_text("restored").first.wait_for()
    _shoot(ui, folder, "healed")


def _photos(ui: Ui, folder: Path, served: Control) -> None:
    shutil.copy(PALACE, served.home / "images")
    ui.page.goto(f"{ui.address}/edi")
    shown(ui.page.locator("body"), PALACE.name)
    _shoot(ui, folder, "photos")
    ui.page.get_by_role("link", name=PALACE.name).click()
    ui.page.get_by_label("What to do").fill("make the sky dramatic")
    shown(ui.page.locator("body"), PALACE.name)
    _shoot(ui, folder, "edit")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if why := missing():
        sys.exit(f"No picture can be taken: {why}.")
    main(Path(sys.argv[1]))
