"""What a person does in Prefect's UI, in that person's words, for the tests and the screenshots."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Request

# The titles of the fields, as flows/form.py gives them.
PHOTO = "Photo"
PROMPT = "What to do"
JUDGE = "Who judges the result"
VERDICT = "Your verdict"
STARS = "Stars"
COMMENT = "Comment"

#: Seconds for a run, however busy the machine: on a quiet one an edit takes five.
RUN_SECONDS = 600


class Ui:
    """A person in front of the UI, whose address the ready lines of `edi serve` have told."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self._asked: dict[Request, float] = {}
        page.on("request", lambda request: self._asked.update({request: time.monotonic()}))
        for over in ("requestfinished", "requestfailed"):
            page.on(over, lambda request: self._asked.pop(request, None))

    @property
    def main(self) -> Locator:
        """The page without its menu."""
        return self.page.get_by_role("main").last

    # --- Starting a run -------------------------------------------------------------------------------

    def open_first_page(self) -> None:
        """Prefect's dashboard; what the server has not answered is told where it does not come."""
        try:
            self.page.goto(f"{self.address}/v2/dashboard")
        except Exception as error:
            now = time.monotonic()
            for request, asked in self._asked.items():
                error.add_note(f"not answered for {now - asked:.0f} s: {request.method} {request.url}")
            raise

    def open_deployment(self, name: str) -> None:
        """From the first page to a deployment's."""
        self.open_first_page()
        self.page.get_by_role("link", name="Deployments").first.click()
        # By its address: the first page, which is still there for a moment, has links to flows of the same names.
        there = self.page.locator("a[href*='/deployments/deployment/']")
        self.main.get_by_role("link", name=name, exact=True).and_(there).first.click()
        self.page.wait_for_url("**/deployments/deployment/**")

    def open_form(self, name: str) -> None:
        """The form of a deployment: Run, Custom run."""
        self.open_deployment(name)
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Custom run").click()
        self.main.get_by_role("button", name="Submit").wait_for()

    def quick_run(self, name: str) -> str:
        """Run a deployment as it is; returns the id of the run, whose page is open then."""
        self.open_deployment(name)

        def click() -> None:
            self.page.get_by_role("button", name="Run", exact=True).click()
            self.page.get_by_role("menuitem", name="Quick run").click()

        return self._watch(self._sent(click, "/create_flow_run")["id"])

    def submit(self) -> str:
        """Send the form; returns the id of the run, whose page is open then."""
        click = self.main.get_by_role("button", name="Submit").click
        return self._watch(self._sent(click, "/create_flow_run")["id"])

    def _watch(self, run_id: str) -> str:
        # In the note that pops up, or in the list of runs.
        self.page.locator(f"a[href*='{run_id}']").first.click()
        self.page.wait_for_url(f"**/flow-run/{run_id}**")
        self.page.get_by_role("tab", name="Logs").wait_for()
        return run_id

    def _sent(self, click: Any, path: str) -> Any:
        """What the server answers to a click that changes something."""
        with self.page.expect_response(lambda answer: answer.url.endswith(path)) as told:
            click()
        assert told.value.ok, f"{told.value.status} {told.value.text()}"
        return told.value.json()

    # --- Fields ---------------------------------------------------------------------------------------

    def field(self, title: str, within: Locator | None = None) -> Locator:
        """A field by its title, be it optional or not."""
        return (within or self.main).get_by_label(re.compile(rf"^{re.escape(title)}( \(Optional\))?$"))

    def fill(self, title: str, text: str, within: Locator | None = None) -> None:
        self.field(title, within).fill(text)

    def choose(self, title: str, choice: str, within: Locator | None = None) -> None:
        # The label of a list of choices is not tied to its button.
        (within or self.main).get_by_role("button", name=f"Select {title}").click()
        self.page.get_by_role("option", name=choice, exact=True).click()

    def fill_edit(self, photo: str, prompt: str, judge: str = "") -> None:
        """The fields of `edit-image` that a person looks at."""
        self.open_form("edit-image")
        self.fill(PHOTO, photo)
        self.fill(PROMPT, prompt)
        if judge:
            self.choose(JUDGE, judge)

    # --- The page of a run ----------------------------------------------------------------------------

    def open_run(self, run_id: str) -> None:
        self.page.goto(f"{self.address}/v2/runs/flow-run/{run_id}")
        self.page.get_by_role("tab", name="Logs").wait_for()

    def wait_for_state(self, state: str) -> None:
        """Until the open page of a run shows this state."""
        self.main.get_by_text(state, exact=True).first.wait_for(timeout=RUN_SECONDS * 1000)

    def tab(self, name: str) -> Locator:
        """Open a tab of a run's page; returns what it shows."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        return self.page.get_by_role("tabpanel", name=name, exact=True)

    def open_artifact(self, title: str) -> Locator:
        """From a run's page to the newest version of the artifact whose card says `title`; returns its text."""
        self.tab("Artifacts").get_by_role("link").filter(has_text=title).first.click()
        self.page.wait_for_url("**/artifacts/key/**")
        self.page.locator("a[href*='/artifacts/artifact/']").first.click()
        return self.page.get_by_role("tabpanel", name="Artifact", exact=True)

    # --- The dialog of a run that waits ---------------------------------------------------------------

    def open_dialog(self) -> Locator:
        """Resume, in the menu of the run's page."""
        self.main.get_by_role("button", name="Open menu").click()
        self.page.get_by_role("menuitem", name="Resume").click()
        return self.page.get_by_role("dialog")

    def send_dialog(self, dialog: Locator) -> None:
        """Give the answer; the run goes on."""
        told = self._sent(dialog.get_by_role("button", name=re.compile("^(Resume|Submit)$")).click, "/resume")
        assert told["status"] == "ACCEPT", told
        dialog.wait_for(state="hidden")


def shown(within: Locator, alt: str) -> int:
    """The width in pixels of a picture once it is really on the page."""
    picture = within.get_by_alt_text(alt, exact=True)
    picture.wait_for()
    picture.evaluate("picture => picture.decode()")
    return int(picture.evaluate("picture => picture.naturalWidth"))
