"""What a comment says: only what it really says, in one of the words of the chips."""

from __future__ import annotations

import pytest

from edi_storage.wording import reasons_of


@pytest.mark.parametrize(
    ("comment", "reasons"),
    [
        ("", []),
        ("lovely!", ["other"]),
        ("very strong light, great", ["other"]),
        ("way too much, over the top", ["too strong"]),
        ("I can hardly see any difference", ["too weak"]),
        ("not dramatic enough", ["too weak"]),
        ("it changed the house as well", ["wrong region"]),
        ("it removed the wrong car", ["wrong region"]),
        ("a halo around the roof", ["edges"]),
        ("her skin looks orange", ["colour"]),
        ("blotchy sky", ["artifact"]),
        ("too dark", ["tone"]),
        ("Too saturated, and the EDGES\nare jagged", ["edges", "too strong"]),
        ("das ist zu dunkel", ["other"]),
    ],
)
def test_a_comment_gives_the_reasons_that_it_names(comment: str, reasons: list[str]) -> None:
    assert reasons_of(comment) == reasons


def test_chips_and_words_add_up() -> None:
    assert reasons_of("jagged", ["tone"]) == ["edges", "tone"]
    assert reasons_of("no idea", ["tone"]) == ["tone"]
