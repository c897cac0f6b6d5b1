"""The composition root of a live run: every part is chosen and connected here, top to bottom.

    agents --HTTP--> gateway -> relay -> upstream -> servers      a scheduler of ours, in this process
    agents --HTTP--> somebody else's gateway                      `external:URL`

Both arms are played by the same agents over HTTP, from a cold cache, and sampled alike.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from harness.compose import arrivals_of, recorder_of
from harness.errors import EngineFailed, SetupError
from harness.live.cold import make_cold
from harness.live.driver import LiveDriver, refuse_unmet_needs
from harness.live.gateway import Gateway
from harness.live.hooks import HookClient, start_command
from harness.live.http_upstream import HttpUpstream
from harness.live.limits import Door
from harness.live.live_run import LiveRun, OpenScene, Scene, Stage
from harness.live.monitor import HttpProbe, Monitor
from harness.live.outages import Outages
from harness.live.relay import Relay
from harness.live.replay.chat import ChatPrompts, calibrated, probes
from harness.live.replay.prompts import Dialect, TokenPrompts
from harness.live.routes import Control
from harness.live_spec import LiveSpec, Server, external_url, is_external
from harness.records import RunWriter
from harness.resolve import build_policy, load_workload, programs_of
from harness.spec import RunKey, RunSpec
from harness.virtual.driver import Progress
from harness.virtual.sandbox import SandboxPool
from schedulers.contract import Capability, Policy

TARGET = "server"  # what agents call whoever they send their calls to
CLOSING_S = 1.0  # for what is still being answered when a run is over
_HOOKS_PLACE = "unix:/tmp/thunderbench-hooks.sock"


class LiveWired(NamedTuple):
    """A run ready to go. `recorder` is entered first, `run.run()` played, then `recorder.finish` called.

    `run.client` and `run.servers` belong into the summary, under these names.
    """

    run: LiveRun
    recorder: RunWriter


def compose_live(
    study: RunSpec,
    key: RunKey,
    folder: Path,
    provenance: Mapping[str, Any],
    on_progress: Callable[[Progress], None] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> LiveWired:
    """Everything that makes one live run of a resolved study; its results go to the new folder `folder`.

    The servers run. A key for them is taken from OPENAI_API_KEY. Raises `SetupError`.
    """
    spec = study.only(key)
    live = spec.live
    if live is None:
        raise ValueError("a live run of a spec of virtual time")
    workload = load_workload(spec, key.seed)
    policy = None if is_external(key.scheduler) else build_policy(spec, key.scheduler, key.seed)
    until_the_end = math.isinf(spec.duration_s)
    about = {"backend": spec.backend, "servers": [server.url for server in live.servers]}
    recorder = recorder_of(spec, key, folder, workload, policy, {**provenance, "options": about})
    api_key = environment.get("OPENAI_API_KEY")
    place = _Place(spec, live, {} if not api_key else {"Authorization": f"Bearer {api_key}"})
    run = LiveRun(
        place.somebody_elses(external_url(key.scheduler))
        if policy is None
        else place.ours(policy, recorder),
        programs=programs_of(workload),
        size=workload.size if until_the_end else None,  # rounds follow each other while time is left
        arrivals=arrivals_of(spec, key),
        sandboxes=SandboxPool(),
        own_sandboxes=policy is None or not policy.manages_sandboxes,
        recorder=recorder,
        warmup_s=spec.warmup_s,
        duration_s=None if until_the_end else spec.duration_s,
        sample_every_s=spec.sample_every_s,
        start_spread_s=spec.start_spread_s,
        clients_release=spec.release,
        retries=live.retries,
        request_timeout_s=live.request_timeout_s,
        identity_headers=live.identity_headers,
        tool_command=live.tool_command,
        tool_timeout_s=live.tool_timeout_s,
        seed=key.seed,
        on_progress=on_progress,
    )
    return LiveWired(run, recorder)


class _Place:
    """The servers of a study, and what can be opened in front of them."""

    def __init__(self, spec: RunSpec, live: LiveSpec, headers: Mapping[str, str]) -> None:
        self._spec, self._live, self._headers = spec, live, headers
        self._servers: dict[str, Server] = {f"r{i}": server for i, server in enumerate(live.servers)}
        self._urls = {name: server.url for name, server in self._servers.items()}

    def ours(self, policy: Policy, recorder: RunWriter) -> OpenScene:
        """A gateway of ours with this policy, listening on a port of its own."""

        @asynccontextmanager
        async def opened(stage: Stage) -> AsyncIterator[Scene]:
            async with AsyncExitStack() as stack:
                session = await stack.enter_async_context(aiohttp.ClientSession(headers=self._headers))
                hooks = await self._hooks(stack)
                self._refuse_unmet_needs(policy, hooks)
                known = await self._prepare(session, next(iter(self._urls.values())))
                outages = Outages(
                    stage.clock,
                    recorder.decide,
                    why=lambda name: f"{self._urls[name]}: {monitor.health[name].last_error}",
                    give_up=stage.fail,
                )
                driver = LiveDriver(
                    policy,
                    stage.clock,
                    decide=outages.decide,
                    hooks=hooks,
                    sandboxes=stage.sandboxes,
                    on_fault=stage.fail,
                )
                monitor = await self._monitor(stack, session, driver)
                address = await self._listen(stack, driver, monitor, tells_engine=hooks is not None)
                yield Scene(
                    self._client(stack, address, {}),
                    TARGET,
                    known.model,
                    known.dialect,
                    driver,
                    HttpProbe(session, self._urls),
                    tuple(self._urls),
                    lambda: {
                        **known.facts,
                        "outages": outages.summary(),
                        "lost_hook_messages": None if hooks is None else dict(hooks.lost),
                    },
                )

        return opened

    def somebody_elses(self, url: str) -> OpenScene:
        """A gateway that runs already. The servers behind it, if known, are made cold and sampled."""

        @asynccontextmanager
        async def opened(_stage: Stage) -> AsyncIterator[Scene]:
            async with AsyncExitStack() as stack:
                session = await stack.enter_async_context(aiohttp.ClientSession(headers=self._headers))
                known = await self._prepare(session, url)
                yield Scene(
                    self._client(stack, url, self._headers),
                    TARGET,
                    known.model,
                    known.dialect,
                    None,
                    HttpProbe(session, self._urls),
                    tuple(self._urls),
                    lambda: known.facts,
                )

        return opened

    # ---------------------------------------------------------------- parts

    def _client(self, stack: AsyncExitStack, url: str, headers: Mapping[str, str]) -> HttpUpstream:
        client = HttpUpstream({TARGET: url}, idle_s=self._live.request_timeout_s, headers=headers)
        stack.push_async_callback(client.close)
        return client

    async def _hooks(self, stack: AsyncExitStack) -> HookClient | None:
        """Connections to the engine hooks, where every server's address names them."""
        places = {name: server.hooks for name, server in self._servers.items() if server.hooks is not None}
        if self._live.hooks == "off" or (not places and self._live.hooks == "auto"):
            return None
        if len(places) < len(self._servers):
            raise SetupError(
                f"engine hooks of {len(places)} of {len(self._servers)} servers",
                "hooks of every server or of none",
                f"Such as --backend http://127.0.0.1:8000#hooks={_HOOKS_PLACE}",
            )
        hooks = HookClient(places)
        stack.push_async_callback(hooks.close)
        await hooks.connect()
        return hooks

    def _refuse_unmet_needs(self, policy: Policy, hooks: HookClient | None) -> None:
        queue = self._spec.engine.scheduling_policy
        offered = frozenset() if hooks is None else hooks.capabilities
        if queue == "priority" or (queue == "auto" and self._spec.backend == "vllm"):
            offered |= {Capability.PRIORITY}
        url = next(iter(self._urls.values()))
        refuse_unmet_needs(
            policy,
            frozenset(offered),
            f"Start each server so: {start_command(_HOOKS_PLACE)}; and name its hooks: "
            f"--backend {url}#hooks={_HOOKS_PLACE}",
        )

    async def _prepare(self, session: aiohttp.ClientSession, url: str) -> _Known:
        """What must be known before calls can be sent to `url`; leaves the servers' caches cold."""
        model = self._live.served_model or await served_model(session, url)
        dialect: Dialect = TokenPrompts()
        facts: dict[str, Any] = {"model": model}
        if self._live.api == "chat":
            calibration = calibrated([await _prompt_tokens(session, url, model, each) for each in probes()])
            dialect = ChatPrompts(calibration)
            facts["chat"] = calibration._asdict()
        cold = [
            await make_cold(session, each, model=self._live.served_model) for each in self._urls.values()
        ]
        return _Known(model, dialect, facts | {"cold": [asdict(each) for each in cold]})

    async def _monitor(
        self, stack: AsyncExitStack, session: aiohttp.ClientSession, driver: LiveDriver
    ) -> Monitor:
        """Looks at the servers, all of which are up."""
        monitor = Monitor(
            driver,
            self._urls,
            session=session,
            kv_tokens=self._spec.kv_tokens,
            block_size=self._spec.vllm_options.get("block_size"),
        )
        stack.push_async_callback(monitor.stop)
        await monitor.start()
        down = [name for name in self._urls if name not in driver.replicas]
        if down:
            why = "; ".join(f"{self._urls[name]}: {monitor.health[name].last_error}" for name in down)
            raise EngineFailed(f"not every server answers ({why})")
        return monitor

    async def _listen(
        self, stack: AsyncExitStack, driver: LiveDriver, monitor: Monitor, *, tells_engine: bool
    ) -> str:
        """Serve the gateway on a free loopback port; its address."""
        upstream = HttpUpstream(self._urls, idle_s=self._live.request_timeout_s, headers=self._headers)
        stack.push_async_callback(upstream.close)
        relay = Relay(driver, upstream, tell_engine=tells_engine, on_unreachable=monitor.note_failure)
        control = Control(
            driver,
            scheduler=driver.policy.name,
            replicas=tuple(self._urls),
            metrics=bytes,
            draining=lambda: relay.draining,
        )
        server = Gateway(relay, control, door=Door(None)).server()
        stack.push_async_callback(server.shutdown, CLOSING_S)
        listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, backlog=1024)
        stack.callback(listener.close)
        return f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


class _Known(NamedTuple):
    """What was found out of a server before the run."""

    model: str
    dialect: Dialect
    facts: dict[str, Any]


async def served_model(session: aiohttp.ClientSession, url: str) -> str:
    """The first model that a server lists. Raises `EngineFailed` and `SetupError`."""
    answer = await _ask(session, "GET", f"{url}/v1/models")
    models = answer.get("data")
    if not isinstance(models, list) or not models or not isinstance(models[0], dict):
        raise SetupError(
            f"GET {url}/v1/models lists no model", "a list of models", "Give live.served_model"
        )
    return str(models[0]["id"])


async def _prompt_tokens(
    session: aiohttp.ClientSession, url: str, model: str, messages: list[dict[str, str]]
) -> int:
    """How many tokens a server counts in a chat."""
    body = {"model": model, "messages": messages, "max_tokens": 1, "temperature": 0.0}
    answer = await _ask(session, "POST", f"{url}/v1/chat/completions", body)
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if not isinstance(tokens, int):
        raise SetupError(
            f"{url} counts no prompt tokens of a chat", "usage in the answer", "Use --api tokens"
        )
    return tokens


async def _ask(
    session: aiohttp.ClientSession, method: str, url: str, body: object = None
) -> dict[str, Any]:
    """A server's answer to one question."""
    try:
        async with session.request(method, url, json=body) as answer:
            text = await answer.text(errors="replace")
            if answer.status != 200:
                words = " ".join(text.split())[:200]
                raise SetupError(f"{method} {url} answers {answer.status} {words!r}", "an answer 200")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise EngineFailed(f"{url} does not answer: {error or type(error).__name__}") from error
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SetupError(f"{method} {url} answers {text[:200]!r}", "JSON")
    return found
