"""What the gateway answers itself: programs, facts of agents, health, metrics.

The first two and the last are ThunderAgent's, whose clients work unchanged:

    POST /programs/release  {"program_id": "p1"}     the program is over
    GET  /programs          {"p1": {"backend": "r0", "total_tokens": 5120, "status": "acting", ...}}
    POST /programs/events   {"program_id": "p1", "event": "tool_started", "tool": "bash"}
    GET  /health            200 while calls are served, else 503
    GET  /metrics           Prometheus
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from harness.live.answers import Plain, refused, told
from harness.live.driver import LiveDriver, LiveProgram, Told
from harness.live.identity import LONGEST_ID, valid_id
from harness.live.said import MOST_TOKENS
from harness.spec_fields import A_MONTH_S
from schedulers.contract import SandboxReady, ToolFinished, ToolProgressed, ToolStarted

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Release(msgspec.Struct):
    """Body of /programs/release."""

    program_id: str | int


class _Fact(msgspec.Struct):
    """Body of /programs/events. `event` says which of the other fields count."""

    program_id: str | int
    event: str
    call_id: str = ""
    tool: str = ""
    duration_s: Annotated[float, Meta(ge=0, le=A_MONTH_S)] = 0.0
    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    observation_tokens: Annotated[int, Meta(ge=0, le=MOST_TOKENS)] = 0
    needs_sandbox: bool = False


_FACTS: dict[str, Callable[[str, _Fact], Told]] = {
    "tool_started": lambda name, fact: ToolStarted(name, fact.call_id, fact.tool),
    "tool_progressed": lambda name, fact: ToolProgressed(name, fact.call_id, fact.tool, fact.share),
    "tool_finished": lambda name, fact: ToolFinished(
        name, fact.call_id, fact.tool, fact.duration_s, fact.observation_tokens
    ),
    "sandbox_ready": lambda name, _: SandboxReady(name),
}


class Standing(NamedTuple):
    """Where a program stands with the scheduler; null where the scheduler keeps no ledger."""

    status: str | None = None
    state: str | None = None
    tokens: int | None = None
    replica: str | None = None


class Control:
    """Answers about `driver`'s programs and about itself.

    `replicas` are the names of all servers, `scheduler` is the name it was started with, `metrics`
    renders Prometheus' text, `draining` says whether it takes no more calls.
    """

    def __init__(
        self,
        driver: LiveDriver,
        *,
        scheduler: str,
        replicas: tuple[str, ...],
        metrics: Callable[[], bytes],
        draining: Callable[[], bool],
    ) -> None:
        self._driver, self._scheduler, self._replicas = driver, scheduler, replicas
        self._metrics, self._draining = metrics, draining

    def programs(self) -> Plain:
        """Every program that is not over; times in seconds."""
        driver, now = self._driver, self._driver.now
        return told({name: self._program(name, live, now) for name, live in driver.programs.items()})

    def _program(self, name: str, live: LiveProgram, now: float) -> dict[str, Any]:
        found = standing(self._driver, name)
        status = found.status or ("reasoning" if live.calls else "acting")
        in_flight = [call for call in live.calls.values() if call.placement is not None]
        replica = found.replica or (live.last_replica or None)
        return {
            "backend": in_flight[0].placement.replica if in_flight and in_flight[0].placement else replica,
            "context_len": found.tokens,
            "total_tokens": found.tokens,
            "step_count": live.calls_seen,
            "status": status,
            "state": found.state,
            "calls_open": len(live.calls),
            "calls_held": len(live.calls) - len(in_flight),
            "pauses": live.pauses,
            "age_s": now - live.arrived_s,
            "quiet_s": 0.0 if live.calls else now - live.quiet_since_s,
        }

    def release(self, body: bytes) -> Plain:
        """A client says that its program is over."""
        try:
            program_id = _id(msgspec.json.decode(body, type=_Release).program_id)
        except (msgspec.MsgspecError, ValueError) as error:
            return _bad(f'{error}; expected {{"program_id": "..."}}')
        return told({"program_id": program_id, "released": self._driver.release(program_id)})

    def event(self, body: bytes) -> Plain:
        """An agent reports a fact. Facts of a program that is not here are ignored."""
        try:
            fact = msgspec.json.decode(body, type=_Fact)
            program_id = _id(fact.program_id)
        except (msgspec.MsgspecError, ValueError) as error:
            return _bad(f'{error}; expected {{"program_id": "...", "event": "..."}}')
        if fact.event == "arrived":
            self._driver.arrive(program_id, needs_sandbox=fact.needs_sandbox)
        elif fact.event in _FACTS:
            self._driver.told(_FACTS[fact.event](program_id, fact))
        else:
            return _bad(f"event {fact.event!r}; expected one of arrived, {', '.join(_FACTS)}")
        return told({"program_id": program_id, "known": program_id in self._driver.programs})

    def health(self, *, brief: bool) -> Plain:
        """Whether calls are served; `brief`: only that."""
        driver = self._driver
        if driver.fault is not None:
            status = "failed"
        elif self._draining():
            status = "draining"
        else:
            status = "ok" if driver.replicas else "no server is up"
        content: dict[str, Any] = {"status": status}
        if not brief:
            content |= self._details()
        return told(content, 200 if status == "ok" else 503)

    def _details(self) -> dict[str, Any]:
        driver = self._driver
        found = [standing(driver, name) for name in driver.programs]
        reasoning = sum(bool(live.calls) for live in driver.programs.values())
        return {
            "scheduler": self._scheduler,
            "backends": list(self._replicas),
            "replicas": {name: "up" if name in driver.replicas else "down" for name in self._replicas},
            "programs_count": len(driver.programs),
            "reasoning_count": reasoning,
            "acting_count": len(driver.programs) - reasoning,
            "paused_count": sum(each.state == "paused" for each in found),
            "calls_open": len(driver.calls),
            "calls_held": driver.held,
            "fault": None if driver.fault is None else str(driver.fault),
        }

    def metrics(self) -> Plain:
        """Prometheus' text."""
        return Plain(200, [("Content-Type", _METRICS_TYPE)], self._metrics())


def standing(driver: LiveDriver, program_id: str) -> Standing:
    """What the policy's ledger says of a program, for policies that keep one as ours do."""
    ledger = getattr(driver.policy, "ledger", None)
    programs: Mapping[str, Any] = getattr(ledger, "programs", {})
    entry = programs.get(program_id)
    if entry is None:
        return Standing()
    state, account = entry.state, entry.account
    return Standing(
        None if state.phase is None else str(state.phase),
        None if state.status is None else str(state.status),
        entry.context_tokens,
        None if account is None else account.name,
    )


def _id(given: str | int) -> str:
    """As calls have it. Raises `ValueError` for what would be no identity there."""
    found = valid_id(str(given))
    if found is None:
        raise ValueError(f"program_id is empty, not printable or longer than {LONGEST_ID} characters")
    return found


def _bad(message: str) -> Plain:
    return refused(400, " ".join(message.split()), "invalid_request_error")
