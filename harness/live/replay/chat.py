"""Prompts as messages for `/v1/chat/completions`.

Text stands for tokens: segments become runs of short words, word `i` a function of (key, i), so two
contexts share text exactly where they share content. How many words make so many tokens is measured on
the server. A leading system prompt is a `system` message, an output an `assistant` message with the text
that was generated, everything else is `user`; neighbours of one role are one message, as chat templates
want it. Counts come from the server's usage: a plan's lengths are met only nearly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from harness.errors import SetupError
from harness.live.replay.prompts import Heard
from workloads.model import Segment, SegmentKind
from workloads.tokens import token_ids

# Words of one length, common enough to be one token each for tokenizers trained on text.
_WORDS = (
    "able also area away back ball bank base bear best blue boat body book born both call came camp card "
    "care case city club cold come cost dark data date days dead deal deep does done door down draw drop "
    "each east edge else even ever eyes face fact fair fall farm fast feel feet felt find fine fire fish "
    "five food foot form four free from full game gave girl give goes gold gone good gray grew grow half "
    "hall hand hard have head hear heat held help here high hill hold home hope hour huge idea inch into "
    "iron just keep kept kind king knew know lady lake land last late lead left less life like line list "
    "live long look lost love made main make many mark mean meet mile milk mind moon more most move much "
    "must name near need next nine none nose note once only open over page pair part pass past path plan "
    "play poem poor race rain read real rest rich ride ring rise road rock role room root rope rose rule "
    "safe said sail salt same sand seat seed seem seen self sell send sent ship shoe shop show side sign "
    "size skin slow snow soft soil some song soon sort spot star stay step stop such suit sure take talk "
    "tall team tell test than that them then they thin this time tiny told tone took town tree trip true "
    "turn type unit upon used vary vast very view vote wait walk wall want warm wash wave ways wear week "
    "well went were west what when whom wide wife wild will wind wing wire wish with wood word work yard "
    "year your zero"
)
WORDS = tuple(_WORDS.split())


class Calibration(NamedTuple):
    """How many tokens a word takes, and how many a message beside its words."""

    per_word: float = 1.0
    per_message: float = 0.0


class ChatPrompts:
    """Prompts as messages."""

    path = "/v1/chat/completions"
    prompt_field = b"messages"
    fields: Mapping[str, Any] = {}

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration

    def ask(self, new: Sequence[Segment], heard: Mapping[str, Heard], *, begins: bool) -> bytes:
        """The new segments as messages; the whole is JSON objects joined by commas."""
        leading = 0
        while begins and leading < len(new) and new[leading].kind is SegmentKind.SYSTEM_PROMPT:
            leading += 1
        roles = [("system" if i < leading else "user", segment) for i, segment in enumerate(new)]
        messages = []
        for role, of_role in groupby(roles, key=lambda pair: pair[0]):
            segments = [segment for _, segment in of_role]
            # the overhead of the message is taken from its first segment
            extra = [self._calibration.per_message, *[0.0] * (len(segments) - 1)]
            texts = [
                self._text(segment, heard, less) for segment, less in zip(segments, extra, strict=True)
            ]
            messages.append(_message(role, "\n".join(texts)))
        return b",".join(messages)

    def answer(self, output: Segment, heard: Heard) -> tuple[bytes, bool]:
        """What was generated, as the assistant's message; words of its key where there was no text."""
        text = "".join(heard.text)
        return _message("assistant", text or self._words(output.key, output.tokens)), bool(text)

    def _text(self, segment: Segment, heard: Mapping[str, Heard], less: float) -> str:
        known = heard.get(segment.key)
        text = "" if known is None else "".join(known.text)
        return text or self._words(segment.key, segment.tokens - less)

    def _words(self, key: str, tokens: float) -> str:
        # one word at least: templates and servers refuse messages without any
        return words(key, max(1, round(tokens / self._calibration.per_word)))


def words(key: str, count: int) -> str:
    """The first `count` words of a content."""
    return " ".join([WORDS[i] for i in token_ids(key, 0, count, len(WORDS))])


def probes() -> list[list[dict[str, str]]]:
    """Three conversations whose prompt tokens tell what words and messages cost; see `calibrated`."""
    short, long = {"role": "user", "content": words("a", 50)}, {"role": "user", "content": words("a", 450)}
    answer = {"role": "assistant", "content": words("b", 50)}
    return [[short], [long], [short, answer, {"role": "user", "content": words("c", 50)}]]


def calibrated(counts: Sequence[int]) -> Calibration:
    """What prompts of so many tokens for `probes` tell. Raises `SetupError` for counts of no tokenizer."""
    short, long, three = counts
    per_word = (long - short) / 400
    if per_word <= 0:
        raise SetupError(
            f"a server that counts {short} tokens in 50 words and {long} in 450",
            "a server whose usage counts prompt tokens",
            "Use --api tokens",
        )
    return Calibration(per_word, (three - short - 100 * per_word) / 2)


def _message(role: str, content: str) -> bytes:
    return json.dumps({"role": role, "content": content}, ensure_ascii=False).encode(errors="replace")
