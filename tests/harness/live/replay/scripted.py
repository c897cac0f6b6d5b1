"""A server in memory that answers as a script says, and remembers what it was asked and when."""

import asyncio
import json
from dataclasses import dataclass, field

from harness.live.ports import UpstreamFailed


@dataclass
class Say:
    """One answer. Numbers among `parts` are seconds of waiting; an exception is raised."""

    parts: list
    status: int = 200
    headers: list = field(default_factory=list)
    closed: bool = False

    async def chunks(self):
        for part in self.parts:
            if isinstance(part, (int, float)):
                await asyncio.sleep(part)
            elif isinstance(part, Exception):
                raise part
            else:
                yield part

    async def close(self):
        self.closed = True


def event(**fields):
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def tokens(ids, **more):
    return event(choices=[{"index": 0, "text": "x" * len(ids), "token_ids": ids, **more}])


def usage(prompt, output, cached=None):
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return event(choices=[], usage={"prompt_tokens": prompt, "completion_tokens": output, **details})


DONE = b"data: [DONE]\n\n"


def good(ids, *, prompt=8, cached=None, first_s=1.0, rest_s=2.0, headers=()):
    """A stream: the first token after `first_s`, the others `rest_s` later."""
    parts = [first_s, tokens(ids[:1]), rest_s, tokens(ids[1:], finish_reason="length")]
    return Say([*parts, usage(prompt, len(ids), cached), DONE], headers=list(headers))


class Scripted:
    """`ports.Upstream`: answers come from `answers` in order, then from `otherwise(body)`."""

    def __init__(self, *answers, otherwise=None):
        self.answers, self.otherwise = list(answers), otherwise
        self.asked, self.said = [], []  # (seconds, request), answers

    @property
    def bodies(self):
        return [json.loads(request.body) for _, request in self.asked]

    @property
    def times(self):
        return [seconds for seconds, _ in self.asked]

    async def send(self, replica, request):
        assert replica == "server"
        self.asked.append((asyncio.get_running_loop().time(), request))
        answer = self.answers.pop(0) if self.answers else self.otherwise(json.loads(request.body))
        if isinstance(answer, UpstreamFailed):
            raise answer
        self.said.append(answer)
        return answer
