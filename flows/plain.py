"""What went wrong, as one sentence in the state of a flow run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect.states import Failed

from edi_storage.errors import EdiError

P = ParamSpec("P")
T = TypeVar("T")


def in_plain_words(run: Callable[P, T]) -> Callable[P, T]:
    """A flow's function whose EdiError becomes its run's message: the sentence as it stands, and no traceback.

    Prefect would say "Flow run encountered an exception: ..." and name the class. A caller still gets the error raised.
    """

    @wraps(run)
    def told(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return run(*args, **kwargs)
        except EdiError as error:
            return cast("T", Failed(message=str(error), data=cast("Any", error)))

    # As types, not as text: Prefect would look the text up among the names of this file.
    told.__signature__ = inspect.signature(run, eval_str=True)  # type: ignore[attr-defined]
    return told
