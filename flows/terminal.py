"""What the `edi` command prints, and how it asks."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, TypeVar, get_args

import typer

from edi_storage.errors import EdiError, InputError, SessionFailedError
from edi_storage.settings import load_settings

if TYPE_CHECKING:
    from edi_storage.forking import Wanted
    from edi_storage.models import Question, Reason, SessionData, WaitingFor
    from edi_storage.store import Store
    from flows.editing import Person, Result, Verdict

P = ParamSpec("P")
T = TypeVar("T")

SessionArgument = Annotated[str, typer.Argument(metavar="ID", help="A session id, the start of one, or 'last'.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for scripts.")]

DONE, FAILED, BAD_INPUT, WAITING, INTERRUPTED = 0, 1, 2, 3, 130


# --- Errors ------------------------------------------------------------------------------------------


def handled(command: Callable[P, T]) -> Callable[P, T]:
    """A command whose errors become one sentence and an exit code; `--json` gets them as JSON too."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        as_json = bool(kwargs.get("as_json"))
        try:
            return command(*args, **kwargs)
        except SessionFailedError as error:
            _end(str(error), error.exit_code, as_json, _what_became_of(error.session_id) if as_json else None)
        except EdiError as error:
            _end(str(error), error.exit_code, as_json)
        except KeyboardInterrupt:
            _end("Interrupted. Nothing is lost: `edi resume --all` goes on.", INTERRUPTED, as_json)
        except BrokenPipeError:
            raise typer.Exit(FAILED) from None
        except OSError as error:
            _end(_refusal(error), FAILED, as_json)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # noqa: BLE001 - a person gets a sentence; the traceback goes to a file
            _end(_unexpected(error), FAILED, as_json)

    return run


def _end(message: str, code: int, as_json: bool, result: Result | None = None) -> NoReturn:
    if as_json:
        print_json({**(result or {}), "error": message, "exit_code": code})
    typer.secho(message, err=True, fg=None if code == WAITING else typer.colors.RED)
    raise typer.Exit(code)


def _what_became_of(session_id: str) -> Result:
    from flows.output import outcome

    with store() as opened:
        return outcome(opened, session_id)


def _refusal(error: OSError) -> str:
    """What the operating system said, of which file."""
    reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
    return f"Could not use {error.filename}: {reason}." if error.filename else f"Could not go on: {reason}."


def show_usage_error(error: Any) -> None:
    """The error of a wrong command line as JSON; the sentence for people follows on standard error."""
    print_json({"error": error.format_message(), "exit_code": BAD_INPUT})


def _unexpected(error: Exception) -> str:
    """Keep the traceback for whoever mends it, and say where it is."""
    what = f"Something went wrong that should not have: {type(error).__name__}: {error}."
    try:
        log = load_settings().home / "errors.log"
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)) + "\n")
    except Exception:  # noqa: BLE001 - whatever keeps the log from being written, the first error is to be told
        return what
    return f"{what} Details are in {log}; nothing that was finished is lost."


# --- Shared ------------------------------------------------------------------------------------------


@contextmanager
def store() -> Iterator[Store]:
    """The store of this EDI_HOME, with a word when its database has just been made beside old checkpoints."""
    from edi_storage.store import open_store

    settings = load_settings()
    with open_store(settings) as opened:
        # Also the next time, as long as nothing was made in the new database.
        if not opened.database.session_ids(limit=1) and opened.checkpoints.session_ids():
            say("The database is empty, but there are checkpoints: `edi doctor --repair` brings the sessions back.")
        yield opened


def find_session(opened: Store, name: str) -> SessionData:
    """The session a person means. Raises NotFoundError."""
    from flows.sessions import find_session as find

    return find(opened.database, name)


def reasons(given: Sequence[str]) -> list[Reason]:
    """The reasons, checked: an unknown one is bad input."""
    from edi_storage.models import Reason

    known = get_args(Reason)
    for reason in given:
        if reason not in known:
            raise InputError(f"There is no reason {reason!r}: choose from {', '.join(known)}.")
    return [reason for reason in known if reason in given]


def say(message: str) -> None:
    """A line for the person; standard output is for results."""
    typer.echo(message, err=True)


def show(document: Any, as_json: bool, text: str) -> None:
    """Print a result: the document for scripts, the text for people."""
    if as_json:
        print_json(document)
    else:
        typer.echo(text)


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=not _writes_unicode(), default=str))


def _writes_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def counted(number: int, what: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def confirm(question: str, yes: bool) -> None:
    """Ask before something is destroyed; without a terminal only --yes will do."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError(f"{question} Add --yes to do it without being asked.")
    if not typer.confirm(question, err=True):
        raise typer.Exit(FAILED)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    # Not on a terminal, each row stays on one line, for grep.
    width = None if sys.stdout.isatty() else 400
    Console(width=width, highlight=False, markup=False).print(table)


def temporary(name: str) -> Path:
    """For a look: a file that only its owner can read, and that the system clears away with the others."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="edi-")) / name


# --- Edits -------------------------------------------------------------------------------------------


class _Lines(logging.Handler):
    """Shows the sentences of the stages as they come."""

    def emit(self, record: logging.LogRecord) -> None:
        mark, colour = ("!", typer.colors.YELLOW) if record.levelno >= logging.WARNING else ("-", None)
        typer.secho(f"  {mark} {record.getMessage()}", err=True, fg=colour)


class _Nobody:
    """A script: questions wait in the session."""

    def choose(self, question: Question) -> str | None:
        return None

    def pick(self, result: Result) -> str | None:
        return None

    def judge(self, result: Result) -> Verdict | None:
        return None


class _AtTerminal:
    """A person who can answer now."""

    def choose(self, question: Question) -> str | None:
        say(f"\n{question.text}")
        for number, choice in enumerate(question.choices, 1):
            say(f"  {number}. {choice}")
        while True:
            answer: str = typer.prompt("Your choice, or several: 1,2 (0: later)", default="1", err=True).strip()
            if answer == "0":
                return None
            if question.numbers_in(answer):
                return answer
            say(f"Give a number from 1 to {len(question.choices)}.")

    def pick(self, result: Result) -> str | None:
        from edi_storage.models import EntityData
        from flows.engines.choices import read_choice

        say(f"\n{result['question']['text']}\n{_variations_text(result)}")
        entities = [EntityData.model_validate(entity) for entity in result["entities"]]
        while True:
            asked = "A number, or a blend such as '1, sky from 2' (0: later)"
            answer: str = typer.prompt(asked, default="1", err=True).strip()
            if answer == "0":
                return None
            try:
                read_choice(answer, len(result["variations"]), entities)
            except InputError as error:
                say(str(error))
            else:
                return answer

    def judge(self, result: Result) -> Verdict | None:
        from edi_storage.models import FeedbackType
        from flows.editing import Verdict

        say(f"\nLook at {result['edited_image_path']} (alignment {result['alignment_score']:.2f}).")
        words: dict[str, FeedbackType] = {word[0]: word for word in get_args(FeedbackType)}
        answer: str = typer.prompt("accept, reject, partial, or later", default="later", err=True)
        word = words.get(answer.strip().lower()[:1])
        if word is None:
            return None
        stars: int = typer.prompt("Stars, 1 to 5 (0: none)", type=int, default=0, err=True)
        rating = stars if 1 <= stars <= 5 else None
        if word == "accept":
            return Verdict(word, rating)
        comment: str = typer.prompt("In your own words", default="", show_default=False, err=True)
        return Verdict(word, rating, _ask_reasons(), comment)


def _ask_reasons() -> list[Reason]:
    from edi_storage.models import Reason

    known = get_args(Reason)
    say("What was wrong?  " + "  ".join(f"{number}. {reason}" for number, reason in enumerate(known, 1)))
    answer: str = typer.prompt("Numbers, with spaces between", default="", show_default=False, err=True)
    chosen = {int(word) for word in answer.replace(",", " ").split() if word.isdigit()}
    return [reason for number, reason in enumerate(known, 1) if number in chosen]


def show_lines(as_json: bool, logger: str = "edi") -> None:
    """Show the sentences of a logger as they come, unless a script reads."""
    if not as_json:
        logging.getLogger(logger).addHandler(_Lines())


def person(as_json: bool) -> Person:
    """Who answers, and where the progress lines go."""
    show_lines(as_json)
    return _AtTerminal() if somebody(as_json) else _Nobody()


def somebody(as_json: bool) -> bool:
    """Whether a person sits here who can answer."""
    return not as_json and sys.stdin.isatty() and sys.stderr.isatty()


def finish_edit(result: Result, as_json: bool) -> None:
    """Print the end of an edit and exit with its code."""
    if as_json:
        print_json(result)
    else:
        typer.echo(result_text(result))
    raise typer.Exit(_code(result))


def wanted_fork(stage: str, session_id: str, prompt: str, strength: str, output: str, overwrite: bool) -> Wanted:
    """What the options of `edi fork` ask for."""
    from uuid import uuid4

    from edi_storage.forking import Wanted
    from flows.engines.wishes import Wishes

    path = str(Path(output).expanduser().absolute()) if output else ""
    how_strong = Wishes.checked(strength=strength).strength
    return Wanted(stage, session_id or str(uuid4()), prompt.strip(), how_strong, path, overwrite)


def finish_fork(result: Result, as_json: bool, ran: bool) -> None:
    """Print the end of a fork's edit, or that it is there for later."""
    if ran:
        finish_edit(result, as_json)
    new = result["session_id"]
    where = f"{result['parent_session_id']} at {result['forked_from_stage']}"
    show(result, as_json, f"Session {new} is forked from {where}. Run it with: edi resume {new}")


def finish_resume_all(results: list[Result], as_json: bool) -> None:
    """Print what became of every interrupted session."""
    if as_json:
        print_json({"sessions": results})
    elif not results:
        typer.echo("No session is interrupted.")
    else:
        typer.echo("\n\n".join(result_text(result) for result in results))
    raise typer.Exit(max((_code(result) for result in results), default=DONE))


def finish_batch(result: Result, as_json: bool) -> None:
    """Print what became of each photo."""
    rows = result["results"]
    if as_json:
        print_json(result)
    else:
        told = len({row["prompt"] for row in rows}) > 1
        print_table(
            ("photo", *(["prompt"] if told else []), "what came of it", "score", "result"),
            [
                (
                    row["photo"],
                    *([row["prompt"]] if told else []),
                    row["error"] or row["decision"],
                    "" if row["score"] is None else f"{row['score']:.2f}",
                    row.get("output") or row["session"],
                )
                for row in rows
            ],
        )
    waiting = sum(row["decision"].startswith("waiting") for row in rows)
    bad = [row for row in rows if row["decision"] in ("failed", "given up", "not finished")]
    given_up = sum(row["decision"] == "given up" for row in bad)
    if bad and not as_json:
        rest = f", but not what was given up ({given_up}): `edi resume ID` tries that" if given_up else ""
        say(f"Not edited: {len(bad)} of {len(rows)}. The same command again tries only those{rest}.")
    if waiting and not as_json:
        say(f"Waiting for you: {waiting} of {len(rows)}. `edi review` lists what is asked.")
    raise typer.Exit(FAILED if bad else WAITING if waiting else DONE)


def _code(result: Result) -> int:
    if waits_for(result):
        return WAITING
    return DONE if result.get("status") == "completed" else FAILED


def waits_for(session: SessionData | Result) -> WaitingFor | None:
    """What a session waits for; one that has ended waits for nobody, whatever was asked before."""
    waiting_for: WaitingFor | None = session.get("waiting_for")
    return waiting_for if session.get("status") == "in_progress" else None


def result_text(result: Result) -> str:
    session_id = result["session_id"]
    waiting_for = waits_for(result)
    question = result.get("question")
    if waiting_for == "question" and question and result["variations"]:
        how = f"Answer with: edi resume {session_id} --answer NUMBER, or a blend: --answer '1, sky from 2'"
        return f"{question['text']}\n{_variations_text(result)}\n{how}"
    if waiting_for == "question" and question:
        choices = "\n".join(f"  {number}. {choice}" for number, choice in enumerate(question["choices"], 1))
        return f"{question['text']}\n{choices}\nAnswer with: edi resume {session_id} --answer NUMBER, or several: 1,2"
    if waiting_for == "review" and result.get("alignment_score") is not None:
        look = f"Look at {result['edited_image_path']} (alignment {result['alignment_score']:.2f})."
        return f"{look}\nThen: edi feedback {session_id} accept|reject|partial, and: edi resume {session_id}"
    if result.get("status") != "completed":
        return f"Session {session_id}: {result.get('failure_reason') or 'not finished yet; edi resume goes on'}"
    restored = result.get("restored_stages") or []
    lines = [f"{result['output'] or result['edited_image_path']}"]
    if result.get("parent_session_id"):
        lines.append(f"  forked from {result['parent_session_id']} at {result['forked_from_stage']}")
    lines += [f"  restored: {', '.join(restored)}"] if restored else []
    lines += [f"  ! {warning}" for warning in result.get("warnings", [])]
    lines.append(f"  Rate it: edi feedback {session_id} accept|reject|partial")
    return "\n".join(lines)


def _variations_text(result: Result) -> str:
    """The variations by number, and the picture that shows them side by side."""
    lines = [f"  {one['number']}. {one['words']}" for one in result["variations"]]
    return "\n".join([*lines, f"Side by side: {_contact_sheet(result['session_id'])}"])


def _contact_sheet(session_id: str) -> str:
    """Path of a file with all variations in one picture; it is made anew whenever somebody is asked."""
    from edi_storage.disk import LocalFolder
    from flows.album import album
    from flows.engines.photo import encode
    from flows.sheet import SHEET, sheet_of

    with store() as opened:
        history = opened.database.load_session(session_id)
        sheet = sheet_of(history, album(opened, history, SHEET), SHEET)
    if sheet is None:
        return "their pictures are missing; `edi doctor --repair` makes them again"
    path = temporary(f"{session_id}-variations.jpg")
    LocalFolder(str(path.parent)).write(path.name, encode(sheet, format="JPEG"))
    return str(path)
