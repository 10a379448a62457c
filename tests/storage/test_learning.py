"""What is told of the learning: to somebody who has never heard of it, and no more than is known."""

from __future__ import annotations

from edi_storage.learning import LearningReport, as_markdown
from edi_storage.models import LearningCell


def report(*cells: LearningCell, new: int = 0) -> str:
    return as_markdown(LearningReport(new_events=new, watermark=new, cells=list(cells)))


def test_nothing_learned_says_so_and_how_to_begin() -> None:
    text = report()
    assert text.startswith("## Nothing learned yet")
    assert "edi feedback last accept" in text
    assert "|---" not in text


def test_few_verdicts_are_not_called_knowledge() -> None:
    text = report(LearningCell(edit_type="style", label="sky", accepted=1), new=1)
    assert "1 feedback event since" in text
    assert "It is early" in text
    assert "Liked" not in text
    assert "| style | sky | ██████████ 100 % | 1 (few) | 1 | 0 | 0 | - |" in text


def test_what_is_liked_most_and_least_is_named_with_its_bar() -> None:
    text = report(
        LearningCell(edit_type="style", label="sky", accepted=6, rejected=2, rating_sum=20, rating_count=5),
        LearningCell(edit_type="color", label="car", rejected=4, partial=2),
        LearningCell(edit_type="color", label="cat", accepted=1),
        new=15,
    )
    assert "Liked most: style edits of sky, accepted 75 %." in text
    assert "Liked least: color edits of car, accepted 17 %." in text
    assert "| style | sky | ████████░░ 75 % | 8 | 6 | 0 | 2 | 4.0 of 5 |" in text
    assert "| color | car | ██░░░░░░░░ 17 % | 6 | 0 | 2 | 4 | - |" in text


def test_a_long_table_is_cut_and_says_so() -> None:
    cells = [LearningCell(edit_type="color", label=f"thing {number}", accepted=9) for number in range(60)]
    text = report(*cells, new=540)
    assert len(text.splitlines()) < 70
    assert "And 10 more, with fewer verdicts" in text


def test_an_engines_word_is_shown_and_not_obeyed() -> None:
    text = report(LearningCell(edit_type="color", label="a | <img src=x> **b** [c](d) snake_case", accepted=1))
    row = next(line for line in text.splitlines() if line.startswith("| color"))
    assert row.count("|") == 9
    assert not set("<>[]*_") & set(row)
