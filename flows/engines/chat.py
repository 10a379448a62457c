"""Reasoners that ask a language model: Ollama, or any server that speaks OpenAI's chat protocol.

The photo is never sent, only the prompt and what the analysis found, in words. Answers follow a JSON schema where the
server heeds it, and are validated whether it does or not: llama.cpp, for one, ignores the limits of numbers. An answer
that does not fit is sent back once with what is wrong with it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from edi_storage.errors import InputError, UnsupportedEditError
from edi_storage.models import Intent, PromptRecord, Question, SceneAnalysis
from edi_storage.record import Record, describe
from flows.engines.backends import Backends
from flows.engines.base import Choice, as_read
from flows.engines.chat_answers import CANNOT, Pair, Understanding, schema_of
from flows.engines.http import Answer, Server, excerpt
from flows.engines.painting import PAINT, with_wish
from flows.engines.refinement import quality_score

T = TypeVar("T", bound=Record)
Message = dict[str, str]

#: Any fixed number: with it and no temperature, the same question gets the same answer, as far as the server can.
_SEED: Final = 1
_UNDERSTAND: Final = (
    "You turn a person's wish about a photo into steps for a photo editor. You do not see the photo; you get a list of "
    "what is in it. Use only the entity ids of that list. scope is 'entities' for named things, 'background' for "
    "everything but the subject (list the background's ids), 'whole' for the entire photo. strength: 0.3 for 'a bit', "
    "0.6 normally, 0.85 for 'very'. color is #rrggbb, for recolour, tint and fill. confidence is how sure you are of "
    "what is meant, 0 to 1; when it is below 0.7, put one short question with two to six choices. Use the action "
    f"'{CANNOT}' only for what none of the other actions can do. Answer with JSON only."
)
_REFINE: Final = (
    "You write the prompt pair for an image editing model: positive_prompt says what to do, negative_prompt what must "
    "not happen, both as short clauses with '; ' between. Keep all that the version before says, and add to it. Answer "
    "with JSON only."
)
#: What each iteration adds (see `Reasoner.refine`).
_ADDS: Final = (
    "Say what to change, and where.",
    "Add what must stay exactly as it is, naming each thing.",
    "Add technical terms: how it is done, and the strength in percent.",
    "Add quality words to the positive, and defects to the negative.",
)


class _Chat(ABC):
    """A server with a model, in one of the two dialects."""

    name: str
    called: str
    #: A model writes what it makes of the wish: a preset put into its mouth would not be what its prompt asks for.
    heeds_choice = False
    #: Where the models are listed.
    _list: str

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        url = backends.chat_url.removesuffix("/v1")
        self._server = Server(self.called, "EDI_CHAT_URL", url, backends.chat_key)

    @property
    def version(self) -> str:
        """This engine's version, and the model's name."""
        return f"1 ({self._backends.chat_model})"

    def models(self) -> list[str]:
        """The models that the server lists. Raises EngineError when it is not there, InputError when it is no such."""
        answer = self._server.get(self._list, seconds=10)
        if answer.status in (401, 403):
            raise InputError(self._refusal(answer))
        try:
            return self._names(answer.json())
        except (KeyError, TypeError):
            raise InputError(self._strange(answer)) from None

    @abstractmethod
    def _names(self, body: Any) -> list[str]:
        """The models in what `_list` gives; raises KeyError or TypeError when there are none."""

    @abstractmethod
    def _ask(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> Answer:
        """Put a conversation to the model, whose answer is to follow the schema."""

    @abstractmethod
    def _text(self, body: Any) -> str:
        """The text of an answer; raises KeyError, IndexError or TypeError when there is none."""

    def understand(
        self, prompt: str, scene: SceneAnalysis, answer: int | None = None, asked: Question | None = None
    ) -> Intent:
        """See `Reasoner.understand`. Raises EngineError for what may pass, InputError for what will not."""
        ids = [entity.entity_id for entity in scene.entities]
        told: dict[str, Any] = {"wish": prompt, "photo": _described(scene)}
        if answer is not None and asked is not None:
            told["you_asked"], told["the_person_chose"] = asked.text, asked.choices[answer - 1]
        schema = schema_of(Understanding, ids, generative=self._backends.generative)
        sure = answer is not None
        understood = self._valid(_UNDERSTAND, told, schema, lambda text: Understanding.read(text, ids, answered=sure))
        if any(step.action == CANNOT for step in understood.steps):
            raise UnsupportedEditError(
                "None of the actions of the configured editor can do that: set EDI_EDITOR=comfyui with a ComfyUI "
                "server, or ask for a change of light, colour or focus."
            )
        if not self._backends.generative and any(step.action == PAINT for step in understood.steps):
            raise UnsupportedEditError("That needs a generative backend: set EDI_EDITOR=comfyui with a ComfyUI server.")
        return understood.as_intent(prompt, ids)

    def refine(
        self,
        prompt: str,
        scene: SceneAnalysis,
        intent: Intent,
        iteration: int,
        attempt: int = 1,
        previous: PromptRecord | None = None,
        hints: list[str] | None = None,
        choice: Choice = as_read,
    ) -> PromptRecord:
        """See `Reasoner.refine`; the quality is measured as for any other reasoner."""
        told: dict[str, Any] = {"wish": prompt, "photo": _described(scene), "now": _ADDS[iteration]}
        told["understood"] = intent.model_dump(
            mode="json", include={"edit_type", "action", "target_entities", "preserve_entities", "strength"}
        )
        if previous is not None:
            told["before"] = {"positive": previous.positive_prompt, "negative": previous.negative_prompt}
        if hints:
            told["earlier_attempts_were_told"] = hints
        pair = self._valid(_REFINE, told, Pair.model_json_schema(), Pair.read)
        record = PromptRecord(attempt_number=attempt, iteration=iteration, **pair.model_dump())
        score = quality_score(record.positive_prompt, record.negative_prompt, scene, intent)
        return with_wish(record.model_copy(update={"quality_score": score}), intent)

    def _valid(self, rules: str, told: Any, schema: Mapping[str, Any], read: Callable[[str], T]) -> T:
        """Ask, validate, and once more with what was wrong."""
        messages = [{"role": "system", "content": rules}, {"role": "user", "content": json.dumps(told)}]
        text = self._say(messages, schema)
        try:
            return read(text)
        except (ValidationError, ValueError) as error:
            wrong = f"That does not fit: {_why(error)} Answer again, with JSON of the given schema only."
            messages += [{"role": "assistant", "content": text[:8000]}, {"role": "user", "content": wrong}]
        text = self._say(messages, schema)
        try:
            return read(text)
        except (ValidationError, ValueError) as error:
            raise InputError(
                f"The model {self._backends.chat_model} gave no usable answer, and none when asked again: "
                f"{_why(error)} Set EDI_CHAT_MODEL to another one."
            ) from error

    def _say(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> str:
        for setting, value in (("URL", self._backends.chat_url), ("MODEL", self._backends.chat_model)):
            if not value:
                raise InputError(f"EDI_REASONER is {self.name}, but EDI_CHAT_{setting} is not set.")
        answer = self._ask(messages, schema)
        if answer.status != 200:
            raise InputError(self._refusal(answer))
        try:
            return str(self._text(answer.json()))
        except (KeyError, IndexError, TypeError):
            raise InputError(self._strange(answer)) from None

    def _strange(self, answer: Answer) -> str:
        said = excerpt(answer.body, 80)
        return f"What answers at {self._server.url} does not speak as {self.called} does ({said}): check EDI_CHAT_URL."

    def _refusal(self, answer: Answer) -> str:
        if answer.status == 404:
            return (
                f"{_begun(self.called)} at {self._server.url} has no model {self._backends.chat_model} "
                f"({excerpt(answer.body, 120)}): set EDI_CHAT_MODEL to one that it lists."
            )
        who = f"{_begun(self.called)} at {self._server.url}"
        if answer.status in (401, 403):
            return f"{who} does not let us in ({answer.status}): check EDI_CHAT_KEY."
        return f"{who} refuses the question ({answer.status}): {excerpt(answer.body)}"


class OllamaReasoner(_Chat):
    """Ollama's `/api/chat` with `format`."""

    name = "ollama"
    called = "Ollama"
    _list = "/api/tags"

    def _names(self, body: Any) -> list[str]:
        names = [str(model["name"]) for model in body["models"]]
        # `llama3.2` stands for `llama3.2:latest`.
        return names + [name.removesuffix(":latest") for name in names if name.endswith(":latest")]

    def _ask(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> Answer:
        # Not `think: false`: with some models it switches `format` off.
        body = {
            "model": self._backends.chat_model,
            "messages": list(messages),
            "format": dict(schema),
            "stream": False,
            "options": {"temperature": 0, "seed": _SEED},
        }
        return self._server.post("/api/chat", body, seconds=self._backends.chat_seconds)

    def _text(self, body: Any) -> str:
        text: str = body["message"]["content"]
        return text


class OpenAIReasoner(_Chat):
    """`/v1/chat/completions` with `response_format`, as llama.cpp, vLLM, LM Studio and many others serve it."""

    name = "openai"
    called = "the chat server"
    _list = "/v1/models"

    def _names(self, body: Any) -> list[str]:
        return [str(model["id"]) for model in body["data"]]

    def _ask(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> Answer:
        wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), "strict": True}}
        body = {
            "model": self._backends.chat_model,
            "messages": list(messages),
            "response_format": wanted,
            "temperature": 0,
            "seed": _SEED,
        }
        return self._server.post("/v1/chat/completions", body, seconds=self._backends.chat_seconds)

    def _text(self, body: Any) -> str:
        text: str = body["choices"][0]["message"]["content"]
        return text


def _begun(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _described(scene: SceneAnalysis) -> Any:
    """What the analysis found, in words and numbers."""
    things = [
        {"id": entity.entity_id, "what": entity.label, "percent": entity.area_percent, "color": entity.color_hex}
        for entity in scene.entities
    ]
    return {"things": things, "layout": scene.spatial_layout}


def _why(error: ValidationError | ValueError) -> str:
    return describe(error, "the answer") if isinstance(error, ValidationError) else f"{error}."
