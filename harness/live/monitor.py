"""Looks at the replicas, and tells the driver which are up, with what capacity, and how loaded.

Each replica has a task of its own, so a slow one delays nobody. A look is one or two questions (`Probe`):
is it well (`health`), and what does it say (`metrics`). The second is asked every `every_s`; the first
every `health_every_s`, and whenever anything is in doubt: the last look failed, a call failed, it says
nothing, it is not up. Only bad health fails a look: a server too busy to write its metrics still serves.

    unknown --good look--> up --`fall` failed looks in a row--> down --`rise` good looks in a row--> up
       `----`fall` failed looks in a row--------------------------^

A call that failed (`note_failure`) counts like a failed look and brings the next look forward, but calls
alone take no replica out: its last strike is always a look that failed. So two connections that a healthy
server closed do not fail every call it has. Those that are down are looked at ever more rarely.

A replica without a known capacity cannot be scheduled: at the start that is the user's to mend; one that
comes later stays out, and `last_error` says why. One that says another capacity than before was restarted:
it is taken out and brought back with the new one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import aiohttp

from harness.errors import SetupError
from harness.live.driver import LiveDriver
from harness.live.exposition import read_metrics, read_server_info
from harness.live.ports import ReplicaMetrics, UpstreamFailed

State = Literal["unknown", "up", "down"]

DEFAULT_BLOCK_SIZE = 16  # tokens; vLLM's on GPUs, of servers that do not say theirs
NUDGE_GAP_S = 0.1  # between looks that failed calls ask for
LONGEST_WAIT_S = 10.0  # between looks at a replica that is down: short beside the start of a server
ABSENT = frozenset({404, 405, 501})  # a server without this page


class Probe(Protocol):
    """The two questions. Both raise `UpstreamFailed` and may take any time: whoever asks sets a limit."""

    async def health(self, replica: str) -> None:
        """Return when the replica is well."""
        ...

    async def metrics(self, replica: str) -> ReplicaMetrics | None:
        """What it says of itself; null when it is a server that says nothing."""
        ...


@dataclass(slots=True)
class ReplicaHealth:
    """What is known of a replica. `since_s` in seconds of the run's clock."""

    state: State = "unknown"
    since_s: float = 0.0
    last_error: str = ""  # why a look or a call failed last; stays after it came back
    metrics: ReplicaMetrics | None = None  # of the last look; null while it is not up
    failures: int = 0  # failed looks in a row, and calls since the last good one
    good: int = 0  # good looks in a row
    silent: bool = False  # a server without metrics


class _Seen(NamedTuple):
    """What a look found. `error`: why it failed; `unsaid`: why there are no metrics though it is well."""

    error: str = ""
    unsaid: str = ""
    metrics: ReplicaMetrics | None = None


class Monitor:
    """Watches `replicas` (name -> base URL) for `driver`.

    `kv_tokens` and `block_size` stand in for what a server does not say. `on_sample` is called with every
    metrics of a replica that is up. `probe` replaces HTTP over `session`.
    """

    def __init__(
        self,
        driver: LiveDriver,
        replicas: Mapping[str, str],
        *,
        session: aiohttp.ClientSession | None = None,
        probe: Probe | None = None,
        every_s: float = 1.0,
        health_every_s: float = 5.0,
        timeout_s: float = 5.0,
        fall: int = 2,
        rise: int = 1,
        kv_tokens: int | None = None,
        block_size: int | None = None,
        on_sample: Callable[[str, ReplicaMetrics], None] | None = None,
    ) -> None:
        if probe is None:
            assert session is not None, "a monitor needs a session or a probe"
            probe = HttpProbe(session, replicas)
        self.health = {name: ReplicaHealth() for name in replicas}
        self._driver, self._probe, self._on_sample = driver, probe, on_sample
        self._every_s, self._health_every_s, self._timeout_s = every_s, health_every_s, timeout_s
        self._fall, self._rise = fall, rise
        self._kv_tokens, self._block_size = kv_tokens, block_size
        self._nudges = {name: asyncio.Event() for name in replicas}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Look at every replica once, tell which are up, and go on looking.

        Raises `SetupError` when one is well but its capacity is not known. None being up is no error
        here: see `health`.
        """
        names = list(self.health)
        looks = await asyncio.gather(*(self._look(name, thorough=True) for name in names))
        for name, seen in zip(names, looks, strict=True):  # told in the order given, whoever was quicker
            self._judge(name, seen)
        for name in names:
            task = asyncio.create_task(self._watch(name), name=f"watching {name}")
            task.add_done_callback(_report_bug)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Look no more. Raises what stopped a look, if that was a bug."""
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for end in ends:
            if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
                raise end

    def note_failure(self, replica: str, reason: str) -> None:
        """A call could not reach a replica, or its connection broke: look at it now."""
        health = self.health[replica]
        if health.state == "up":
            health.last_error = reason
            health.failures = max(health.failures, min(health.failures + 1, self._fall - 1))
            self._nudges[replica].set()

    # ---------------------------------------------------------------- looking

    async def _watch(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        health, nudge = self.health[name], self._nudges[name]
        looked_s = thorough_s = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(looked_s + self._wait_s(health)):
                    await nudge.wait()
                await asyncio.sleep(looked_s + NUDGE_GAP_S - loop.time())
            except TimeoutError:
                pass
            looked_s = loop.time()
            in_doubt = health.state != "up" or health.failures or health.metrics is None
            thorough = nudge.is_set() or bool(in_doubt) or looked_s >= thorough_s + self._health_every_s
            nudge.clear()
            if thorough:
                thorough_s = looked_s
            seen = await self._look(name, thorough=thorough)
            try:
                self._judge(name, seen)
            except SetupError as error:
                self._failed(name, str(error))

    def _wait_s(self, health: ReplicaHealth) -> float:
        """Seconds from one look's beginning to the next's."""
        if health.state == "up":
            return self._health_every_s if health.silent and not health.failures else self._every_s
        doublings = min(max(health.failures - self._fall, 0), 32)
        return min(self._every_s * 2.0**doublings, max(LONGEST_WAIT_S, self._every_s))

    async def _look(self, name: str, *, thorough: bool) -> _Seen:
        """Ask what it says and, if `thorough` or when it does not answer that, whether it is well."""
        if thorough and (error := await self._ill(name)):
            return _Seen(error)
        try:
            async with asyncio.timeout(self._timeout_s):
                return _Seen(metrics=await self._probe.metrics(name))
        except UpstreamFailed as error:
            unsaid = error.reason
        except TimeoutError:
            unsaid = f"metrics: no answer within {self._timeout_s:g} s"
        return _Seen("" if thorough else await self._ill(name), unsaid)

    async def _ill(self, name: str) -> str:
        """Why a replica is not well; empty when it is."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._probe.health(name)
        except UpstreamFailed as error:
            return error.reason
        except TimeoutError:
            return f"health: no answer within {self._timeout_s:g} s"
        return ""

    # ---------------------------------------------------------------- judging

    def _judge(self, name: str, seen: _Seen) -> None:
        if seen.error:
            self._failed(name, seen.error)
            return
        health, metrics = self.health[name], seen.metrics
        if metrics is not None and not metrics.kv_tokens:
            metrics.kv_tokens = self._kv_tokens
        if health.state == "up":
            self._take_out_if_restarted(name, metrics)
        if health.state == "unknown" or health.good + 1 >= self._rise:
            self._bring_in(name, metrics)
        health.failures, health.good = 0, health.good + 1
        health.last_error = seen.unsaid or health.last_error
        if health.state != "up":
            return
        health.metrics, health.silent = metrics, metrics is None and not seen.unsaid
        if metrics is not None:
            self._driver.sampled(name, metrics)
            if self._on_sample is not None:
                self._on_sample(name, metrics)

    def _failed(self, name: str, reason: str) -> None:
        health = self.health[name]
        health.failures, health.good, health.last_error = health.failures + 1, 0, reason
        if health.failures >= self._fall and health.state != "down":
            self._take_out(name, reason)

    def _take_out(self, name: str, reason: str) -> None:
        self._turn(name, "down")
        self.health[name].metrics = None
        self._driver.replica_down(name, reason)

    def _take_out_if_restarted(self, name: str, metrics: ReplicaMetrics | None) -> None:
        told = self._driver.replicas.get(name)
        if told is None or metrics is None or metrics.kv_tokens in {None, told.kv_tokens}:
            return
        reason = f"restarted: room for {metrics.kv_tokens:,} tokens instead of {told.kv_tokens:,}"
        self.health[name].last_error = reason
        self._take_out(name, reason)

    def _bring_in(self, name: str, metrics: ReplicaMetrics | None) -> None:
        """Tell that it is up; nothing happens when that is known."""
        if self.health[name].state == "up":
            return
        tokens = self._kv_tokens if metrics is None else metrics.kv_tokens
        if not tokens:
            raise SetupError(
                f"the server {name} does not say how many tokens its KV cache holds",
                "`vllm:cache_config_info` or `sglang:max_total_num_tokens` in its /metrics",
                "Say it with --kv-tokens TOKENS (vLLM logs it as `GPU KV cache size` when it starts).",
            )
        said = None if metrics is None else metrics.block_size
        block_size = said or self._block_size or DEFAULT_BLOCK_SIZE
        self._turn(name, "up")
        self._driver.replica_up(name, tokens, block_size)

    def _turn(self, name: str, state: State) -> None:
        self.health[name].state, self.health[name].since_s = state, self._driver.now


def _report_bug(task: asyncio.Task[None]) -> None:
    """A look ends by being cancelled only; anything else is shown at once, not when the run stops."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": f"{task.get_name()} stopped", "exception": error, "task": task}
        )


class HttpProbe:
    """Asks over HTTP: `/health` (else `/v1/models`), `/metrics`, and SGLang's server info."""

    def __init__(self, session: aiohttp.ClientSession, replicas: Mapping[str, str]) -> None:
        self._session = session
        self._roots = {name: url.rstrip("/").removesuffix("/v1") for name, url in replicas.items()}
        self._infos: dict[str, ReplicaMetrics] = {}  # asked once, until the replica is not well

    async def health(self, replica: str) -> None:
        """Raise `UpstreamFailed` unless the server says that it is well, or lists its models."""
        info = self._infos.pop(replica, None)  # it may come back as another server
        path = "/health"
        status, _ = await self._get(replica, path)
        if status in ABSENT:
            path = "/v1/models"
            status, _ = await self._get(replica, path)
        if status != 200:
            raise UpstreamFailed(f"{path} answered {status}")
        if info is not None:
            self._infos[replica] = info

    async def metrics(self, replica: str) -> ReplicaMetrics | None:
        """Its `/metrics`, and its capacity from elsewhere where they do not say it."""
        status, body = await self._get(replica, "/metrics")
        if status not in {200, *ABSENT}:
            raise UpstreamFailed(f"/metrics answered {status}")
        try:
            found = None if status in ABSENT else read_metrics(body.decode(errors="replace"))
        except ValueError as error:
            raise UpstreamFailed(f"/metrics is no text of Prometheus: {error}") from error
        if found is not None and found.kv_tokens is not None and found.block_size is not None:
            return found
        info = await self._info(replica)
        if info.kv_tokens is None:
            return found
        if found is None:
            return ReplicaMetrics(kv_tokens=info.kv_tokens, block_size=info.block_size)
        found.kv_tokens = info.kv_tokens if found.kv_tokens is None else found.kv_tokens
        found.block_size = info.block_size if found.block_size is None else found.block_size
        return found

    async def _info(self, replica: str) -> ReplicaMetrics:
        """SGLang's server info; nulls of another server."""
        if replica not in self._infos:
            info = ReplicaMetrics()
            for path in ("/get_server_info", "/server_info"):
                status, body = await self._get(replica, path)
                if status == 200:
                    info = _read_info(body)
                    break
            self._infos[replica] = info
        return self._infos[replica]

    async def _get(self, replica: str, path: str) -> tuple[int, bytes]:
        """Status and body, as the server wrote it: the session may be one that does not decompress."""
        try:
            async with self._session.get(
                self._roots[replica] + path,
                headers={"Accept-Encoding": "identity"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamFailed(f"{path}: {error or type(error).__name__}") from error


def _read_info(body: bytes) -> ReplicaMetrics:
    try:
        info = json.loads(body)
    except ValueError:
        return ReplicaMetrics()
    return read_server_info(info) if isinstance(info, dict) else ReplicaMetrics()
