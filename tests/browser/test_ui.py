"""What a person does and sees in the Prefect UI that `edi serve` prints, in a real Chromium."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from PIL import Image

from tests.browser.healing import kill_and_heal
from tests.browser.photos import large_photo
from tests.browser.ui import COMMENT, RUN_SECONDS, STARS, VERDICT, Ui, shown
from tests.flows.control import Control

with contextlib.suppress(ImportError):  # then `served` says what is missing
    from playwright.sync_api import expect


def test_a_photo_is_edited_from_the_form_shown_before_and_after_and_rated(ui: Ui, served: Control, photo: Path) -> None:
    ui.fill_edit(str(photo), "make the sky dramatic", judge="auto")
    run = ui.submit()
    ui.wait_for_state("Completed")
    artifact = ui.open_artifact("make the sky dramatic")
    assert shown(artifact, "before") > 100
    assert shown(artifact, "after") > 100

    artifact.get_by_role("link", name="right in part").click()
    expect(ui.page.get_by_label("right in part")).to_be_checked()
    ui.page.get_by_label("★★★★", exact=True).check()
    ui.page.get_by_role("button", name="Send").click()
    expect(ui.page.get_by_text("You said: right in part ★★★★.")).to_be_visible()
    assert verdicts(served, run) == [("partial", 4)]

    ui.open_form("record-feedback")
    ui.choose(VERDICT, "accept")
    ui.fill(STARS, "5")
    ui.fill("Session", run[:8])
    ui.submit()
    ui.wait_for_state("Completed")
    expect(ui.main.get_by_text(f"stored: accept 5 - {photo.name}").first).to_be_visible()
    assert verdicts(served, run) == [("accept", 5)]

    ui.page.goto(f"{ui.address}/edi/{run}")
    assert shown(ui.page.locator("body"), "before") == shown(ui.page.locator("body"), "after") > 400


def verdicts(served: Control, run: str) -> list[tuple[str, int | None]]:
    with served.database() as database:
        return [(said.feedback_type, said.rating) for said in database.get_feedback(run)]


def test_without_prefects_pages_a_photo_is_added_edited_asked_about_and_rated(
    ui: Ui, served: Control, photo: Path
) -> None:
    page = ui.page
    page.goto(ui.address)
    for is_there in (False, True):
        page.get_by_label("from this computer").set_input_files(photo)
        expect(page.get_by_label("What to do")).to_be_visible()
        expect(page.get_by_alt_text(photo.name)).to_be_visible()
        expect(page.get_by_text(f"{photo.name} was here already.")).to_have_count(int(is_there))
        if not is_there:
            page.get_by_role("link", name="Photos and edits").click()
    page.get_by_text("make the sky dramatic").click()
    expect(page.get_by_label("What to do")).to_have_value("make the sky dramatic")
    page.get_by_label("What to do").fill("make it better")
    page.get_by_role("button", name="Edit it").click()
    # From here on nobody loads a page: each follows the edit by itself.
    ask = page.get_by_role("button", name="brighter")
    ask.wait_for(timeout=RUN_SECONDS * 1000)
    ask.click()
    page.get_by_text("EDI measures ").wait_for(timeout=RUN_SECONDS * 1000)
    assert shown(page.locator("body"), "before") == shown(page.locator("body"), "after") > 400
    page.get_by_label("not what I wanted").check()
    page.get_by_label("★★", exact=True).check()
    page.get_by_text("What was wrong, if something was").click()
    page.get_by_label("too weak").check()
    page.get_by_label("In your own words").fill("<still> dark")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("You said: not what I wanted ★★, too weak.")).to_be_visible()
    run = PurePosixPath(urlsplit(page.url).path).name
    with served.database() as database:
        (said,) = database.get_feedback(run)
    assert (said.feedback_type, said.rating, said.comments, said.reasons) == ("reject", 2, "<still> dark", ["too weak"])
    page.get_by_role("link", name="Edit the original again").click()
    expect(page.get_by_label("What to do")).to_have_value("make it better")


def test_what_is_no_photo_is_not_added(ui: Ui, photo: Path) -> None:
    ui.page.goto(f"{ui.address}/edi")
    text = photo.with_name("text.jpg")
    text.write_text("no photo")
    ui.page.get_by_label("from this computer").set_input_files(text)
    expect(ui.page.get_by_text("text.jpg is not a photo that EDI can open")).to_be_visible()


def test_of_several_photos_it_is_told_how_many_are_new_and_which_has_another_name(
    ui: Ui, served: Control, photo: Path
) -> None:
    (photo.parent / "other").mkdir()
    there, another, new = photo.with_name("there.jpg"), photo.parent / "other" / "there.jpg", photo.with_name("new.jpg")
    shutil.copy(photo, there)
    shutil.copy(there, served.home / "images")
    Image.new("RGB", (300, 200), "navy").save(another)
    Image.new("RGB", (300, 200), "teal").save(new)
    ui.page.goto(f"{ui.address}/edi")
    ui.page.get_by_label("from this computer").set_input_files([there, new])
    expect(ui.page.get_by_text("1 of 2 photos were added. there.jpg was here already.")).to_be_visible()
    expect(ui.page.get_by_alt_text("new.jpg")).to_be_visible()
    ui.page.get_by_label("from this computer").set_input_files(another)
    expect(ui.page.get_by_text("Another photo is called there.jpg, so this one is now there-2.jpg.")).to_be_visible()


def test_a_wrong_path_is_told_in_one_sentence_on_the_page_that_is_open(ui: Ui, tmp_path: Path) -> None:
    wrong = tmp_path / "beach.jpg"
    ui.fill_edit(str(wrong), "make it warmer")
    ui.submit()
    ui.wait_for_state("Failed")
    sentence = f"There is no file {wrong}; check the path."
    expect(ui.tab("Logs").get_by_text(sentence).first).to_be_visible()
    expect(ui.tab("Logs").get_by_text("Traceback")).to_have_count(0)
    # The whole message, and no class names around it.
    expect(ui.tab("Details").get_by_text(sentence, exact=True).first).to_be_visible()


def test_a_verdict_in_the_dialog_is_stored_and_learned(ui: Ui, served: Control, photo: Path) -> None:
    ui.fill_edit(str(photo), "make it warmer", judge="ask")
    run = ui.submit()
    ui.wait_for_state("Suspended")
    # The page that is open says what to do, without being loaded again.
    expect(ui.tab("Logs").get_by_text("Or here: in some seconds the menu").first).to_be_visible()
    dialog = ui.open_dialog()
    assert shown(dialog, "before") > 100
    assert shown(dialog, "after") > 100
    ui.choose(VERDICT, "accept", dialog)
    ui.fill(STARS, "4", dialog)
    ui.fill(COMMENT, "like an evening in June", dialog)
    ui.send_dialog(dialog)
    ui.wait_for_state("Completed")
    with served.database() as database:
        assert database.require_session(run).decision == "accepted"
        (said,) = database.get_feedback(run)
    assert (said.feedback_type, said.rating, said.comments) == ("accept", 4, "like an evening in June")

    ui.quick_run("learn-from-feedback")
    ui.wait_for_state("Completed")
    learned = ui.open_artifact("learned")
    expect(learned.get_by_role("heading").first).to_contain_text("too early to say whether it helps")
    row = learned.get_by_role("row").filter(has_text="4.0 of 5").first
    expect(row).to_contain_text("insufficient")
    expect(row.get_by_role("cell").nth(1)).not_to_be_empty()


def test_a_killed_edit_heals_in_its_own_run_which_shows_its_history(ui: Ui, served: Control, tmp_path: Path) -> None:
    ui.fill_edit(str(large_photo(tmp_path)), "make the sky stormy", judge="auto")
    run = ui.submit()
    kill_and_heal(ui, served, run)
    expect(
        ui.tab("Logs").get_by_text("The run was interrupted and goes on from its last finished stage.")
    ).to_be_visible()
    expect(ui.tab("Logs").get_by_text("restored").first).to_be_visible()
    expect(ui.tab("Logs").get_by_text("Watch it on its own page")).to_have_count(1)
    details = ui.tab("Details")
    expect(details).to_contain_text("Run Count2")
    with served.database() as database:
        commits = database.get_commits(run)
    assert len({commit.key for commit in commits}) == len(commits)
    assert commits[-1].stage == "completed"
    ui.page.goto(f"{ui.address}/edi/{run}")
    expect(ui.page.get_by_text("It was interrupted, and went on by itself.")).to_be_visible()
