"""What the answers of model servers have in common, streamed or not: usage, tool calls, errors."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Raw, Struct
from msgspec.json import Decoder

from harness.live.inflate import inflated
from harness.live.ports import Usage

COUNTS = (  # what the dialects call the parts of usage
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "input_tokens",
    "output_tokens",
    "input_tokens_details",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
MOST_TOKENS = 10**12  # of one call; a server that counts more counts nothing that can be believed
_LONGEST_ERROR = 300  # characters
_CALLS = frozenset({"function_call", "custom_tool_call", "tool_use"})  # tools that the client runs


class _Function(Struct):
    name: str | None = None


class _Call(Struct):
    function: _Function | None = None


class _Message(Struct):
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    message: _Message | None = None


class _Answer(Struct):
    usage: Any = None
    error: Any = None
    object: Any = None
    message: Any = None
    detail: Any = None
    output: Any = None
    content: Any = None
    choices: Raw = Raw()  # may hold megabytes of log-probabilities


_answer = Decoder(_Answer).decode
_choices = Decoder(list[_Choice] | None).decode


class Read(NamedTuple):
    """What an answer says; null or empty where it does not."""

    usage: Usage | None
    tools: list[str]
    error: str | None


def read_body(body: bytes, encoding: str = "") -> Read:
    """What an answer says that is not streamed; `encoding` is its `Content-Encoding`.

    Never raises: of a body that cannot be read, or is no JSON object, everything is absent.
    """
    plain = inflated(body, encoding)
    try:
        told = _answer(plain) if plain is not None else None
    except (ValueError, RecursionError):
        told = None
    if told is None:
        return Read(None, [], None)
    error = told.error
    if error is None and told.object == "error":  # older vLLM
        error = told.message
    if error is None and not told.choices:  # what web frameworks say
        error = told.detail
    tools = _chosen(told.choices) + call_names(told.output) + call_names(told.content)
    return Read(usage_of(told.usage), tools, None if error is None else one_line(error))


def _chosen(choices: Raw) -> list[str]:
    """Names of the tool calls in the choices of a chat."""
    try:
        found = _choices(choices) if choices else None
    except (ValueError, RecursionError):
        return []
    calls = [call for c in found or () if c.message for call in c.message.tool_calls or ()]
    return [call.function.name for call in calls if call.function and call.function.name]


def usage_of(told: object) -> Usage | None:
    """Usage as any dialect tells it; null without the two counts.

    Anthropic's `input_tokens` leave out what was read from or written to the cache. Where only a total
    is told beside the prompt, as for embeddings, the rest of it is output.
    """
    prompt = _tokens(told, "prompt_tokens")
    cached = _tokens(part(told, "prompt_tokens_details"), "cached_tokens")
    if prompt is None:
        prompt = _tokens(told, "input_tokens")
        cached = _tokens(part(told, "input_tokens_details"), "cached_tokens")
        read = _tokens(told, "cache_read_input_tokens")
        if prompt is not None:
            prompt += (read or 0) + (_tokens(told, "cache_creation_input_tokens") or 0)
        cached = read if cached is None else cached
    output = _tokens(told, "completion_tokens")
    if output is None:
        output = _tokens(told, "output_tokens")
    total = _tokens(told, "total_tokens")
    if output is None and prompt is not None and total is not None and total >= prompt:
        output = total - prompt
    return None if prompt is None or output is None else Usage(prompt, output, cached)


def _tokens(told: object, name: str) -> int | None:
    value = part(told, name)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def part(value: object, name: str) -> Any:
    """A member of what may be an object; null where it is none."""
    return value.get(name) if isinstance(value, dict) else None


def call_names(items: object) -> list[str]:
    """Names of the tool calls among the items of an answer of the Responses API or Anthropic's."""
    calls = [
        item
        for item in (items if isinstance(items, list) else ())
        if isinstance(part(item, "type"), str) and item["type"] in _CALLS
    ]
    return [call["name"] for call in calls if isinstance(call.get("name"), str)]


def one_line(error: object) -> str:
    """One line about an error, in the server's words where it has some."""
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        texts = (error.get(name) for name in ("message", "msg", "type", "code"))
        error = next((text for text in texts if isinstance(text, str | int) and text), None)
    text = " ".join(str(error).split()) if isinstance(error, str | int | float) else ""
    return text[:_LONGEST_ERROR] or "no reason given"
