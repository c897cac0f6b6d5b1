"""`thunderbench serve`: the composition root of a gateway, and its life from start to drained.

    driver (policy) <- monitor (replicas)       gateway (HTTP) -> relay -> upstream -> servers
        `-> recorder, hooks                          `-> control (programs, health, metrics)

On SIGTERM, SIGINT or SIGHUP it drains: no new call is taken, calls that no replica has yet are sent away
with 503 and Retry-After, and what is being answered is answered to its end, for at most `drain_timeout_s`,
or until a second signal comes. SIGHUP means nothing where whoever started it said so (`nohup`).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from harness.errors import SetupError
from harness.live.access_log import AccessLog
from harness.live.clock import LoopClock
from harness.live.config import ServeSpec
from harness.live.driver import LiveDriver, refuse_unmet_needs
from harness.live.exchange import Ended
from harness.live.gateway import Gateway
from harness.live.gateway_metrics import GatewayMetrics, Tally
from harness.live.hook_messages import is_loopback
from harness.live.hooks import HookClient, start_command
from harness.live.http_upstream import HttpUpstream
from harness.live.identity import IdentityRules
from harness.live.limits import KEY_HEADERS, Door
from harness.live.monitor import HttpProbe, Monitor
from harness.live.otel import Spans
from harness.live.ports import ReplicaMetrics, UpstreamFailed
from harness.live.recording import Recorder
from harness.live.relay import Relay
from harness.live.routes import Control
from harness.provenance import utc_now
from harness.records import RunWriter
from harness.resolve import policy_config, setup_errors
from harness.spec import Scalar
from schedulers import registry
from schedulers.contract import Capability, Policy

_LOOKS_FOR_S = 0.5  # between looks at servers that are waited for
_SWEEPS = 20  # per idle time-to-live
_GRACE_S = 1.0  # for what is cut at the end of draining to be told so


@dataclass(frozen=True, slots=True)
class Secrets:
    """Keys, from the environment. Never part of a spec."""

    own: str | None
    servers: str | None


def secrets_of(spec: ServeSpec, environment: Mapping[str, str]) -> Secrets:
    """The keys that the spec names. Raises `SetupError` for a variable that is not set."""

    def read(name: str | None) -> str | None:
        if name is None:
            return None
        value = environment.get(name, "").strip()
        if not value or not value.isascii() or not value.isprintable():
            found = f"environment variable {name} is {'empty or not set' if not value else 'no key'}"
            raise SetupError(found, "a key of printable ASCII in it", f"Such as: export {name}=...")
        return value

    return Secrets(read(spec.api_key_env), read(spec.backend_api_key_env))


class Service:
    """A gateway that runs; made by `running`. `address` is where it listens."""

    def __init__(
        self, driver: LiveDriver, relay: Relay, server: web.Server, address: str, idle: asyncio.Event
    ) -> None:
        self.driver, self.relay, self.address = driver, relay, address
        self._server, self._idle = server, idle
        self._hurries = False

    def hurry(self) -> None:
        """Do not wait for calls any longer while draining."""
        self._hurries = True
        self._idle.set()

    async def drain(self, within_s: float) -> bool:
        """Take no more calls and wait for those under way; whether all of them ended in time."""
        until = asyncio.get_running_loop().time() + within_s
        self.relay.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while self.driver.calls and not self._hurries:
                    self._idle.clear()
                    await self._idle.wait()
        in_time = not self.driver.calls
        for call in list(self.driver.calls.values()):
            call.lose("the gateway is shutting down")
        left = 0.0 if self._hurries else until - asyncio.get_running_loop().time()
        self._server.pre_shutdown()
        await self._server.shutdown(max(left, _GRACE_S))  # clients take what is written for them
        return in_time


def build_policy(spec: ServeSpec) -> Policy:
    """A fresh policy as the spec wants it. Raises `SetupError`."""
    texts = {name: _text(value) for name, value in spec.overrides.scheduler.get(spec.scheduler, {}).items()}
    with setup_errors():
        return registry.build(spec.scheduler, texts, spec.seed)


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@asynccontextmanager
async def running(
    spec: ServeSpec, secrets: Secrets, provenance: Mapping[str, Any], on_fault: Callable[[], None]
) -> AsyncIterator[Service]:
    """A gateway that listens. Leaving closes it and finishes its results. Raises `SetupError`."""
    policy, clock = build_policy(spec), LoopClock()
    urls = {name: server.url for name, server in spec.servers.items()}
    async with AsyncExitStack() as stack:
        hooks = await _hooks(stack, {name: server.hooks for name, server in spec.servers.items()})
        _refuse_unmet_needs(spec, policy, hooks)
        recorder = _recorder(stack, spec, policy, provenance, clock)
        tally = Tally(None if recorder is None else recorder.decide)
        driver = LiveDriver(policy, clock, decide=tally, hooks=hooks, on_fault=lambda _: on_fault())

        headers = {} if secrets.servers is None else {"Authorization": f"Bearer {secrets.servers}"}
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=headers))
        monitor = await _monitor(stack, spec, driver, session, recorder)
        upstream = HttpUpstream(urls, idle_s=spec.upstream_timeout_s, headers=headers)
        stack.push_async_callback(upstream.close)

        lost = None if hooks is None else lambda: sum(hooks.lost.values())
        metrics = GatewayMetrics(
            driver, monitor, scheduler=spec.scheduler, tally=tally, hook_messages_lost=lost
        )
        metrics.start()
        stack.callback(metrics.stop)
        idle = asyncio.Event()
        relay = Relay(
            driver,
            upstream,
            identity=IdentityRules(spec.session_headers),
            own_headers=_own_headers(secrets),
            tell_engine=hooks is not None,
            keep_bodies=spec.log_bodies,
            on_end=_on_end(stack, spec, driver, metrics, idle),
            on_unreachable=monitor.note_failure,
        )
        control = Control(
            driver,
            scheduler=spec.scheduler,
            replicas=tuple(urls),
            metrics=metrics.render,
            draining=lambda: relay.draining,
        )
        server = Gateway(relay, control, door=Door(secrets.own), limits=spec.limits).server()
        listener = await _listen(spec, server)
        stack.callback(listener.close)
        sweeper = asyncio.create_task(_sweep(driver, spec.idle_ttl_s))
        stack.callback(sweeper.cancel)
        yield Service(driver, relay, server, _address(spec, listener), idle)


async def serve(
    spec: ServeSpec, secrets: Secrets, provenance: Mapping[str, Any], announce: Callable[[Service], None]
) -> int:
    """Serve until a signal comes; the exit code. Raises `SetupError`, and what a policy failed with."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "not in a task"
    stopped: asyncio.Future[int] = loop.create_future()
    service: Service | None = None

    def stop(code: int) -> None:
        if stopped.done():
            if service is not None:
                service.hurry()
            return
        stopped.set_result(code)
        if service is None:
            task.cancel()

    signals = {signal.SIGTERM: 0, signal.SIGINT: 130}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals[signal.SIGHUP] = 0
    for number, code in signals.items():
        loop.add_signal_handler(number, stop, code)
    try:
        async with running(spec, secrets, provenance, on_fault=lambda: stop(1)) as service:
            announce(service)
            code = await stopped
            await service.drain(spec.drain_timeout_s)
    except asyncio.CancelledError:
        if service is not None or not stopped.done():
            raise
        task.uncancel()  # stopped before it began
        return stopped.result()
    if service.driver.fault is not None:
        raise service.driver.fault
    return code


# ------------------------------------------------------------------ parts


def _own_headers(secrets: Secrets) -> frozenset[str]:
    """Headers that are not sent on: those of our own key, and the client's where the servers' is known."""
    return KEY_HEADERS if secrets.own is not None or secrets.servers is not None else frozenset()


async def _hooks(stack: AsyncExitStack, places: Mapping[str, str | None]) -> HookClient | None:
    named = {name: place for name, place in places.items() if place is not None}
    if not named:
        return None
    missing = [name for name in places if name not in named]
    if missing:
        raise SetupError(
            f"engine hooks of {', '.join(named)}, and none of {', '.join(missing)}",
            "hooks of every backend or of none",
            "Such as --backend http://127.0.0.1:8000#hooks=unix:/tmp/hooks.sock",
        )
    hooks = HookClient(named)
    stack.push_async_callback(hooks.close)
    await hooks.connect()
    return hooks


def _recorder(
    stack: AsyncExitStack, spec: ServeSpec, policy: Policy, provenance: Mapping[str, Any], clock: LoopClock
) -> Recorder | None:
    """Results of this gateway, finished when it stops, whatever stopped it."""
    if spec.output_dir is None:
        return None
    from harness.metrics import summarise  # noqa: PLC0415 - numpy and pyarrow, for results only

    writer = RunWriter(
        Path(spec.output_dir),
        spec_toml=spec.toml(),
        provenance={
            **provenance,
            "started_utc": utc_now(),
            "simulated": False,
            "run": Path(spec.output_dir).name,
            "policy": {"name": spec.scheduler, "config": policy_config(policy), "seed": spec.seed},
            "options": {"backend": "servers", "backends": list(spec.backends)},
        },
    )
    recorder = Recorder(stack.enter_context(writer))

    def finish(kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            recorder.close(clock.now)
            writer.finish(summarise(writer.tables(), (0.0, max(clock.now, recorder.until_s))))

    stack.push(finish)
    return recorder


def _refuse_unmet_needs(spec: ServeSpec, policy: Policy, hooks: HookClient | None) -> None:
    """Raise `SetupError`, with the command that starts the servers right, when a policy needs more."""
    offered = frozenset() if hooks is None else hooks.capabilities
    if spec.engine_priority:
        offered |= {Capability.PRIORITY}
    place = "unix:/tmp/thunderbench-hooks.sock"
    url = spec.servers["r0"].url
    refuse_unmet_needs(
        policy,
        frozenset(offered),
        f"Start each server so: {start_command(place)}; and name its hooks: --backend {url}#hooks={place}",
    )


def _on_end(
    stack: AsyncExitStack, spec: ServeSpec, driver: LiveDriver, metrics: GatewayMetrics, idle: asyncio.Event
) -> Callable[[Ended], None]:
    """What is done with a call that is over: counted, logged, and the last one ends the draining."""
    log = None if spec.access_log is None else AccessLog(spec.access_log, bodies=spec.log_bodies)
    if log is not None:
        stack.callback(log.close)
    spans = Spans(spec.scheduler, driver.now) if spec.otel else None
    if spans is not None:
        stack.callback(spans.close)

    def ended(call: Ended) -> None:
        metrics.call_ended(call.call)
        if log is not None:
            log.ended(call)
        if spans is not None:
            spans.ended(call)
        if not driver.calls:
            idle.set()

    return ended


async def _monitor(
    stack: AsyncExitStack,
    spec: ServeSpec,
    driver: LiveDriver,
    session: aiohttp.ClientSession,
    recorder: Recorder | None,
) -> Monitor:
    """Looks at the servers; one of them at least is up. Raises `SetupError`."""
    urls = {name: server.url for name, server in spec.servers.items()}

    def sampled(replica: str, metrics: ReplicaMetrics) -> None:
        if recorder is not None:
            recorder.sampled(driver, replica, metrics)

    monitor = Monitor(
        driver,
        urls,
        session=session,
        every_s=spec.sample_every_s,
        kv_tokens=spec.kv_tokens,
        block_size=spec.block_size,
        on_sample=sampled,
    )
    await _await_servers(session, urls.values(), spec.wait_s)
    stack.push_async_callback(monitor.stop)
    await monitor.start()
    if not driver.replicas:
        why = "; ".join(f"{urls[name]}: {one.last_error}" for name, one in monitor.health.items())
        raise SetupError(
            f"no backend answers ({why})", "a server that runs", "Start one, or wait for it with --wait 5m"
        )
    return monitor


async def _await_servers(session: aiohttp.ClientSession, urls: Iterable[str], wait_s: float) -> None:
    """Wait until one server at least is well, for so long at most."""
    probe = HttpProbe(session, {url: url for url in urls})
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            while True:
                for url in urls:
                    with suppress(UpstreamFailed):
                        await probe.health(url)
                        return
                await asyncio.sleep(_LOOKS_FOR_S)


async def _listen(spec: ServeSpec, server: web.Server) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(server, spec.host, spec.port, backlog=1024)
    except OSError as error:
        raise SetupError(
            f"--host {spec.host} --port {spec.port}: {error.strerror or error}",
            "an address of this machine and a port that is free",
            "Choose another --port; 0 takes any that is free",
        ) from None


def _address(spec: ServeSpec, listener: asyncio.Server) -> str:
    host, port = listener.sockets[0].getsockname()[:2]
    shown = spec.host if is_loopback(spec.host) or spec.host != host else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


async def _sweep(driver: LiveDriver, ttl_s: float) -> None:
    """Release programs whose clients never do."""
    while True:
        await asyncio.sleep(ttl_s / _SWEEPS)
        driver.release_quiet(ttl_s)
