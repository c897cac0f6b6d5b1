"""What a gateway is told: one frozen, validated description.

It is merged from flags, environment `THUNDERBENCH_*`, a TOML file and defaults, in falling precedence,
as a study's is (`harness.settings`). Keys are never part of it: it names the variables that hold them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import tomli_w
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from harness.errors import SetupError
from harness.live.hook_messages import is_loopback
from harness.live.identity import DEFAULT_HEADERS, validated_header
from harness.live.limits import Limits
from harness.live_spec import Server, read_url
from harness.settings import PREFIX, nearest, parse_set
from harness.spec import RunSpec, Scalar
from harness.spec_fields import A_MONTH_S, Frozen, Seconds, listed

_DEFAULTS = Limits()
_TYPO = 0.85  # how alike an unknown variable is to a known one before it is refused as a slip
_SIZE_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

# Flags and environment say `drain_timeout`; the field says its unit, too.
_TIMES = ("idle_ttl", "drain_timeout", "upstream_timeout", "wait", "sample_every", "read_timeout")
UNITS_LEFT_OUT = {name: f"{name}_s" for name in (*_TIMES, "write_timeout", "keep_alive_timeout")} | {
    "body_limit": "body_limit_bytes",
    "backend": "backends",  # as its flag is called
}


def _header(name: str) -> str:
    try:
        return validated_header(name)
    except SetupError as error:
        raise ValueError(error.expected) from None


def _address(text: str) -> str:
    read_url(text)
    return text


def _bytes(value: object) -> object:
    """`64MB` and `64MiB` become bytes."""
    if not isinstance(value, str) or value.strip().isdigit():
        return value
    number = value.strip().rstrip("BbGgIiKkMm")
    unit = value.strip()[len(number) :].lower()
    if not number.strip().isdigit() or unit not in _SIZE_UNITS:
        raise ValueError("a size such as 1000000, 500kB, 64MB or 64MiB")
    return int(number) * _SIZE_UNITS[unit]


class ServeOverrides(Frozen):
    """What `--set scheduler.NAME.x=v` changes."""

    scheduler: dict[str, dict[str, Scalar]] = Field(default_factory=dict)


class ServeSpec(Frozen):
    """A gateway. Units are in the names.

    `backends` are servers, called r0, r1, ... in this order. `engine_priority`: they were started with
    `--scheduling-policy priority`. `kv_tokens` and `block_size` stand in for what they do not say.
    `session_headers` carry a program's identity, the first that is there counts. A program without an open
    call for `idle_ttl_s` is taken for over. `insecure`: listen beyond this machine without a key.
    """

    scheduler: str = Field(default="thunder", min_length=1)
    backends: Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(listed)] = (
        Field(min_length=1)
    )
    engine_priority: bool = False
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8300, ge=0, le=65_535)
    api_key_env: str | None = Field(default=None, min_length=1)
    backend_api_key_env: str | None = Field(default=None, min_length=1)
    insecure: bool = False
    session_headers: Annotated[
        tuple[Annotated[str, AfterValidator(_header)], ...], BeforeValidator(listed)
    ] = DEFAULT_HEADERS
    kv_tokens: int | None = Field(default=None, ge=1, le=10**12)
    block_size: int | None = Field(default=None, ge=1, le=4096)
    seed: int = Field(default=0, ge=0, lt=2**63)
    idle_ttl_s: Seconds = Field(default=3600.0, gt=0, le=A_MONTH_S)
    drain_timeout_s: Seconds = Field(default=30.0, ge=0, le=A_MONTH_S)
    upstream_timeout_s: Seconds = Field(default=900.0, gt=0, le=A_MONTH_S)
    wait_s: Seconds = Field(default=0.0, ge=0, le=A_MONTH_S)
    sample_every_s: Seconds = Field(default=1.0, ge=0.05, le=3600)
    read_timeout_s: Seconds = Field(default=_DEFAULTS.read_s, gt=0, le=A_MONTH_S)
    write_timeout_s: Seconds = Field(default=_DEFAULTS.write_s, gt=0, le=A_MONTH_S)
    keep_alive_timeout_s: Seconds = Field(default=_DEFAULTS.keep_alive_s, gt=0, le=A_MONTH_S)
    body_limit_bytes: Annotated[int, BeforeValidator(_bytes)] = Field(
        default=_DEFAULTS.body_bytes, ge=1, le=2**40
    )
    access_log: str | None = Field(default=None, min_length=1)
    log_bodies: bool = False
    otel: bool = False  # a span per call, exported as OpenTelemetry's own variables say
    output_dir: str | None = Field(default=None, min_length=1)
    overrides: ServeOverrides = ServeOverrides()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not (self.api_key_env or self.insecure or is_loopback(self.host)):
            raise ValueError(
                f"--api-key-env NAME for the host {self.host}, which others can reach "
                "(or --insecure, to let everybody in)"
            )
        strangers = sorted(set(self.overrides.scheduler) - {self.scheduler})
        if strangers:
            raise ValueError(f"settings of {self.scheduler} only, not of {strangers[0]}")
        twice = next((url for url in self.backends if self.backends.count(url) > 1), None)
        if twice is not None:
            raise ValueError(f"every backend once, {twice} is there twice")
        if self.log_bodies and self.access_log is None:
            raise ValueError("--access-log FILE with --log-bodies")
        return self

    @property
    def servers(self) -> dict[str, Server]:
        """The servers by name, in order."""
        return {f"r{index}": read_url(text) for index, text in enumerate(self.backends)}

    @property
    def limits(self) -> Limits:
        """What the gateway puts up with from clients."""
        return Limits(
            body_bytes=self.body_limit_bytes,
            read_s=self.read_timeout_s,
            write_s=self.write_timeout_s,
            keep_alive_s=self.keep_alive_timeout_s,
        )

    def toml(self) -> str:
        """The spec as TOML; reading it back gives an equal spec, `output_dir` apart."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude={"output_dir"}, exclude_none=True))


def read_serve_spec(
    flags: Mapping[str, Any],
    sets: Iterable[str] = (),
    *,
    file: Path | None = None,
    environment: Mapping[str, str],
) -> ServeSpec:
    """The spec of a gateway. `flags` by field name, null where not given. Raises `SetupError`."""
    given = _read_file(file) if file is not None else {}
    given |= _read_environment(environment)
    given |= {name: value for name, value in flags.items() if value is not None}
    for text in sets:
        given = _merged(given, parse_set(text))
    try:
        return ServeSpec.model_validate(given)
    except ValidationError as error:
        raise _in_a_line(error) from None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"config {file}: {error.strerror}", "a readable TOML file") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SetupError(f"config {file}: {error}", "valid TOML") from None


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """`THUNDERBENCH_IDLE_TTL=10m`; `THUNDERBENCH_BACKENDS=http://a:8000,http://b:8000`."""
    given: dict[str, Any] = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        field = UNITS_LEFT_OUT.get(name, name)
        if field in ServeSpec.model_fields and field != "overrides":
            given[field] = text
        elif field in RunSpec.model_fields:
            continue  # of another command
        elif slip := nearest(field, [*ServeSpec.model_fields, *UNITS_LEFT_OUT], _TYPO):
            raise SetupError(f"environment {variable}", f"{PREFIX} and a setting's name", slip)
    return given


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key, anything else of `high` replaces."""
    merged = dict(low)
    for name, value in high.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = _merged(old or {}, value) if both else value
    return merged


def _in_a_line(error: ValidationError) -> SetupError:
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing" and place == "backends":
        return SetupError(
            "no --backend", "the address of a server", "Such as --backend http://127.0.0.1:8000"
        )
    if problem["type"] == "extra_forbidden":
        known = list(ServeSpec.model_fields)
        name = str(problem["loc"][-1])
        return SetupError(f"unknown setting {place}", f"one of {', '.join(known)}", nearest(name, known))
    if problem["type"] == "value_error":
        found = f"{place} = {problem['input']!r}" if place else "settings that do not fit together"
        return SetupError(found, str(problem.get("ctx", {})["error"]))
    expected = problem["msg"].removeprefix("Input should be ")
    return SetupError(f"{place} = {problem['input']!r}", expected[:1].lower() + expected[1:])
