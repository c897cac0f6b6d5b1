"""What a study says of real servers: where they are, or how to start them, and how clients talk to them.

`--backend` takes more than a word. What it may say, and what becomes of it:

    virtual, sim, vllm-core    virtual time
    vllm                       servers that the harness starts: `LiveSpec.model_path` and what follows it
    http://gpu1:8000           servers that run already: backend `servers`, `LiveSpec.urls`; repeatable
    external:http://gw:9000    somebody else's gateway: one more arm, a scheduler of that name; repeatable

Behind a `#` the address of a server may say where its engine hooks listen: `#hooks=unix:/run/hooks.sock` or
`#hooks=tcp:127.0.0.1:7700`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harness.spec_fields import A_MONTH_S, Frozen, Seconds, listed

EXTERNAL = "external:"  # how the scheduler of an arm begins that is a gateway of somebody else's
ALIASES = {"sim": "virtual"}
LIVE_BACKENDS = ("vllm", "servers")
DEFAULT_SCHEDULERS = ("thunder", "vllm")

_HOOKS = re.compile(r"hooks=(unix:/.+|tcp:[^:]+:\d{1,5})")
_NAME_LENGTH = 40  # of an external gateway in a folder's name


class Server(NamedTuple):
    """A server's address, no slash at its end, and where its engine hooks listen (null: not said)."""

    url: str
    hooks: str | None


def read_url(text: str) -> Server:
    """The parts of `http://host:port[/path][#hooks=...]`. Raises ValueError with what is expected."""
    parts = urlsplit(text.strip())
    try:
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:  # no number, or too large a one
        port_is_valid = False
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_valid or parts.query:
        raise ValueError("an address such as http://127.0.0.1:8000")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address without a user and password: specs are written down")
    if parts.fragment and not _HOOKS.fullmatch(parts.fragment):
        raise ValueError("after # nothing but hooks=unix:/PATH or hooks=tcp:HOST:PORT")
    url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"
    return Server(url, parts.fragment.removeprefix("hooks=") or None)


def _url(text: str) -> str:
    """A server's address in its one spelling."""
    server = read_url(text)
    return f"{server.url}#hooks={server.hooks}" if server.hooks else server.url


def is_external(scheduler: str) -> bool:
    """Whether a scheduler is a gateway of somebody else's (and no class of a module `external`)."""
    return scheduler.startswith(EXTERNAL) and not scheduler.removeprefix(EXTERNAL).isidentifier()


def external_url(scheduler: str) -> str:
    """The address in `external:URL`."""
    return scheduler.removeprefix(EXTERNAL)


def arm(scheduler: str) -> str:
    """A scheduler's name, that of an external gateway in its one spelling. Raises ValueError."""
    if not is_external(scheduler):
        return scheduler
    server = read_url(external_url(scheduler))
    if server.hooks is not None:
        raise ValueError("no hooks of a gateway that is not ours")
    return f"{EXTERNAL}{server.url}"


def short_name(scheduler: str) -> str:
    """A scheduler as folders are named after it: of an external gateway the host, cut if it is long.

    What is cut off is told apart by four bytes of its hash.
    """
    if not is_external(scheduler):
        return scheduler
    place = external_url(scheduler).partition("://")[2]
    if len(place) > _NAME_LENGTH:
        place = f"{place[: _NAME_LENGTH - 9]}_{blake2b(place.encode(), digest_size=4).hexdigest()}"
    return f"external_{place}"


def _gpu_groups(value: object) -> object:
    """`0,1;2,3` becomes a list of comma texts, one per replica."""
    return [group.strip() for group in value.split(";")] if isinstance(value, str) else value


def _gpus(text: str) -> str:
    """Numbers or names of GPUs, as CUDA_VISIBLE_DEVICES takes them."""
    if not re.fullmatch(r"[\w-]+(,[\w-]+)*", text):
        raise ValueError("the GPUs of one replica, such as 0,1")
    return text


def _header(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name):
        raise ValueError("the name of a header, such as X-Session-Id")
    return name


def _arguments(value: object) -> object:
    """`--a 1 --b` becomes a list, quoted as in a shell."""
    return shlex.split(value) if isinstance(value, str) else value


class LiveSpec(Frozen):
    """How to reach or start servers, and how clients play. Fields up to `tool_timeout_s` are for all.

    `api`: `tokens` sends prompts as token ids (`/v1/completions`), `chat` as texts. `retries`: attempts
    after a failed one, as many as OpenAI's client makes. `request_timeout_s` is long because a call may be
    held for minutes, and a client that gave up would change the load. `identity_headers`: the headers,
    beside the field `program_id` of the body, in which external gateways are told whose a request is.
    `tool_command`: what `sh` runs for each tool (see `replay.commands`), for at most `tool_timeout_s`;
    null: tools are waits of the time that they are recorded with.

    The rest is for servers that the harness starts (backend `vllm`), which are told nothing that is null:
    `gpus` are those of each replica, comma texts; `port` that of the first replica (null: free ports),
    `kv_offloading_size` GiB, `server_args` go to `vllm serve` as they are.
    """

    urls: Annotated[tuple[Annotated[str, AfterValidator(_url)], ...], BeforeValidator(listed)] = ()
    served_model: str | None = Field(default=None, min_length=1)  # null: the first of /v1/models
    api: Literal["tokens", "chat"] = "tokens"
    retries: int = Field(default=2, ge=0, le=100)
    request_timeout_s: Seconds = Field(default=3600.0, gt=0, le=A_MONTH_S)
    hooks: Literal["auto", "on", "off"] = "auto"
    identity_headers: Annotated[
        tuple[Annotated[str, AfterValidator(_header)], ...], BeforeValidator(listed)
    ] = ("X-Program-Id", "X-Session-Id", "X-Correlation-ID", "x-dynamo-session-id")
    tool_command: str | None = Field(default=None, min_length=1)
    tool_timeout_s: Seconds = Field(default=600.0, gt=0, le=A_MONTH_S)

    model_path: str | None = Field(default=None, min_length=1)
    tensor_parallel_size: int = Field(default=1, ge=1, le=1024)
    gpus: Annotated[tuple[Annotated[str, AfterValidator(_gpus)], ...], BeforeValidator(_gpu_groups)] = ()
    port: int | None = Field(default=None, ge=1, le=65535)
    num_gpu_blocks_override: int | None = Field(default=None, ge=1)
    max_model_len: int | None = Field(default=None, ge=1)
    load_format: str | None = Field(default=None, min_length=1)
    kv_offloading_size: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    server_args: Annotated[tuple[str, ...], BeforeValidator(_arguments)] = ()
    ready_timeout_s: Seconds = Field(default=600.0, gt=0, le=A_MONTH_S)

    @model_validator(mode="after")
    def _each_server_once(self) -> Self:
        urls = [server.url for server in self.servers]
        twice = next((url for url in urls if urls.count(url) > 1), None)
        if twice is not None:
            raise ValueError(f"every server once, {twice} is there twice")
        return self

    @property
    def servers(self) -> tuple[Server, ...]:
        """`urls`, taken apart."""
        return tuple(map(read_url, self.urls))


def with_backend(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which `backend` is one word, from what people say of it (see above).

    Addresses take the place of `live.urls`, external gateways join the schedulers, or are the only ones if
    nobody named any and there are no other servers. Raises ValueError for more than one backend.
    """
    found = dict(given)
    said = listed(given.get("backend"))
    words = list(said) if isinstance(said, (list, tuple)) else []
    if words and all(isinstance(word, str) for word in words):
        arms = [word for word in words if is_external(word)]
        urls = [word for word in words if "://" in word and word not in arms]
        unclear = next((w for w in words if ":" in w and w not in {*arms, *urls}), None)
        if unclear is not None:
            raise ValueError(f"backend {unclear} with http:// in front, if it is a server")
        kinds = list(dict.fromkeys(ALIASES.get(w, w) for w in words if w not in {*arms, *urls}))
        if urls or not kinds:
            kinds.append("servers")
        if len(set(kinds)) > 1:
            raise ValueError(f"one backend, not {' and '.join(dict.fromkeys(kinds))}")
        found["backend"] = kinds[0]
        if urls:
            found["live"] = {**_plain(given.get("live")), "urls": urls}
        if arms:
            found["schedulers"] = _with_arms(
                given.get("schedulers"), arms, alone=kinds == ["servers"] and not urls
            )
    if found.get("backend") in LIVE_BACKENDS and found.get("live") is None:
        found["live"] = {}
    return found


def _plain(live: Any) -> Mapping[str, Any]:
    if isinstance(live, LiveSpec):
        return live.model_dump(exclude_unset=True)
    return live if isinstance(live, Mapping) else {}


def _with_arms(schedulers: Any, arms: list[str], *, alone: bool) -> list[Any]:
    said = listed(schedulers)
    named = list(said) if isinstance(said, (list, tuple)) else []
    if not named and not alone:
        named = list(DEFAULT_SCHEDULERS)
    return [*named, *(each for each in dict.fromkeys(arms) if each not in named)]
