"""What gets lost over real sockets: `python -m tests.bench.soak [--json] [--requests N] [--programs N]`.

Two servers in processes of their own, a gateway with `thunder` and `-o` in another, clients in this one.

The storm: programs side by side while the servers are killed and started again, answer 429 or 500,
garbage or half a chunk, hang, or break off; clients hang up in the middle or lose their patience. Then
all must be as if nothing had been: the decisions name one end for every call, no program is left, and
they replay. The soak: many calls without faults, and the gateway's memory on the way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import aiohttp
import uvloop

from harness.records import open_run
from harness.replay import replay
from schedulers.contract import CallArrived, CallFailed, CallFinished, ProgramArrived, ProgramFinished
from tests.bench.gateway import resident_mb

PROGRAMS, CALLS, REQUESTS = 200, 40, 100_000
AT_ONCE = 64  # clients of the soak
SHARES = (20, 40, 60, 80, 100)  # of the soak's requests, in percent, at which memory is looked at
ODDS = 0.15  # of a request of the storm going wrong at its server
SILENT_S = 1.0  # what the gateway waits for a silent server
IDLE_S = 3.0  # after which a program that nobody releases is over
PATIENCE_S = 60.0  # for what must come to rest


# ------------------------------------------------------------------ processes


async def _started(*command: str) -> tuple[asyncio.subprocess.Process, dict[str, object]]:
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    return process, json.loads(await process.stdout.readline())


async def _end(process: asyncio.subprocess.Process, number: int = signal.SIGKILL) -> int:
    if process.returncode is None:
        process.send_signal(number)
    return await asyncio.wait_for(process.wait(), PATIENCE_S)


class Servers:
    """Two servers that can be killed and started again on their ports."""

    def __init__(self, odds: float, seed: int) -> None:
        self._odds, self._rng = odds, random.Random(seed)
        self._processes: list[asyncio.subprocess.Process] = []
        self.ports: list[int] = []
        self.killed = 0

    async def __aenter__(self) -> Self:
        try:
            for _ in range(2):
                process, port = await self._start(0)
                self._processes.append(process)
                self.ports.append(port)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            await _end(process)

    async def _start(self, port: int) -> tuple[asyncio.subprocess.Process, int]:
        words = (str(port), str(self._odds), str(self._rng.randrange(2**31)))
        process, told = await _started("-m", "tests.bench.faulty_server", *words)
        return process, int(str(told["port"]))

    async def kill_until(self, enough: asyncio.Event) -> None:
        """`kill -9` one of them every other second, and start it again; both run in the end."""
        while not enough.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), self._rng.uniform(0.5, 2.0))
            which = self._rng.randrange(2)
            await _end(self._processes[which])
            self.killed += 1
            await asyncio.sleep(self._rng.random())
            self._processes[which], _ = await self._start(self.ports[which])


@asynccontextmanager
async def gateway(ports: list[int], folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A gateway before servers on these ports, which records into `folder`."""
    backends = [word for port in ports for word in ("--backend", f"http://127.0.0.1:{port}")]
    process, told = await _started(
        *("-c", "from harness.cli import main; main()", "serve", "--json", "--port", "0"),
        *("--scheduler", "thunder", "--set", "scheduler.thunder.delta_t_s=0.2", *backends),
        *("--upstream-timeout", f"{SILENT_S}", "--idle-ttl", f"{IDLE_S}", "--sample-every", "0.1"),
        *("--wait", "10s", "-o", str(folder)),
    )
    try:
        yield process, str(told["address"])
    finally:
        await _end(process)


# ------------------------------------------------------------------ clients


class Crowd:
    """Programs that call through a gateway; `heard` counts what their clients were told.

    With `rude` some hang up after a first piece, some have little patience, some never release, some
    say who they are in a header, and some not at all.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession, *, rude: bool, seed: int) -> None:
        self._url, self._session, self._rude = url, session, rude
        self._rng = random.Random(seed)
        self.heard: Counter[str] = Counter()

    async def program(self, number: int, calls: int, think_s: float = 0.0) -> None:
        name = f"p{number}"
        for step in range(calls):
            at_once = 1 + (self._rude and self._rng.random() < 0.1)  # or two sub-agents
            await asyncio.gather(*(self._call(name, number, step) for _ in range(at_once)))
            if think_s:
                await asyncio.sleep(self._rng.expovariate(1 / think_s))
        if not self._rude or number % 3:
            released = {"program_id": name}
            async with self._session.post(f"{self._url}/programs/release", json=released) as answer:
                assert answer.status == 200, answer.status

    async def _call(self, name: str, number: int, step: int) -> None:
        asked = {"model": "m", "stream": self._rng.random() < 0.8}
        asked["messages"] = [{"role": "user", "content": "word " * (40 + 10 * step)}]
        headers = {}
        if self._rude and number % 5 == 0:
            headers["X-Session-Id"] = name
        elif not self._rude or number % 5 != 1:  # the others are nobody's
            asked["program_id"] = name
        told = "left" if self._rude and self._rng.random() < 0.1 else ""
        patience_s = 0.03 if self._rude and self._rng.random() < 0.05 else PATIENCE_S
        try:
            async with (
                asyncio.timeout(patience_s),
                self._session.post(
                    f"{self._url}/v1/chat/completions", json=asked, headers=headers
                ) as answer,
            ):
                async for _ in answer.content.iter_any():
                    if told:
                        answer.close()
                        break
                else:
                    told = str(answer.status)
        except TimeoutError:
            told = "timed out"
        except aiohttp.ClientError:
            told = "broken"
        self.heard[told] += 1


# ------------------------------------------------------------------ measurements


@dataclass
class Found:
    """What came of a run. Memory in MB, times in seconds."""

    requests: int = 0
    took_s: float = 0.0
    heard: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    killed: int = 0
    memory_mb: list[float] = field(default_factory=list)
    events_replayed: int = 0
    problems: list[str] = field(default_factory=list)


async def storm(folder: Path, *, programs: int = PROGRAMS, calls: int = CALLS, seed: int = 0) -> Found:
    """Everything goes wrong; what is left of it."""
    began, found = time.monotonic(), Found()
    async with (
        Servers(ODDS, seed) as servers,
        gateway(servers.ports, folder) as (process, url),
        _session() as s,
    ):
        crowd = Crowd(url, s, rude=True, seed=seed)
        found.memory_mb.append(resident_mb(process.pid))
        enough = asyncio.Event()
        killing = asyncio.ensure_future(servers.kill_until(enough))
        try:
            await asyncio.gather(*(crowd.program(number, calls, 0.1) for number in range(programs)))
        finally:
            enough.set()
            await killing
        await _at_rest(s, url, found)
        found.memory_mb.append(resident_mb(process.pid))
        await _stopped(process, found)
        found.heard, found.killed = dict(crowd.heard), servers.killed
    found.requests, found.took_s = sum(crowd.heard.values()), time.monotonic() - began
    judge(folder, found)
    found.events_replayed = replay(folder).events
    return found


async def soak(folder: Path, *, requests: int = REQUESTS, seed: int = 0) -> Found:
    """Nothing goes wrong, for long; memory when so many percent are through."""
    began, found, each = time.monotonic(), Found(requests=requests), 10
    async with (
        Servers(0.0, seed) as servers,
        gateway(servers.ports, folder) as (process, url),
        _session() as s,
    ):
        crowd = Crowd(url, s, rude=False, seed=seed)
        numbers = iter(range(requests // each))

        async def client(until: int) -> None:
            while (number := next(numbers, until)) < until:
                await crowd.program(number, each)

        for share in SHARES:
            until = requests // each * share // 100
            numbers = iter(range(sum(crowd.heard.values()) // each, until))
            await asyncio.gather(*(client(until) for _ in range(AT_ONCE)))
            found.memory_mb.append(resident_mb(process.pid))
        await _at_rest(s, url, found)
        await _stopped(process, found)
    found.heard, found.took_s = dict(crowd.heard), time.monotonic() - began
    judge(folder, found)
    found.events_replayed = replay(folder).events
    return found


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def _at_rest(session: aiohttp.ClientSession, url: str, found: Found) -> None:
    """Wait until no program and no call is left; note it when they do not go."""
    until = time.monotonic() + PATIENCE_S
    while True:
        async with session.get(f"{url}/programs") as answer:
            programs = await answer.json()
        async with session.get(f"{url}/health") as answer:
            health = await answer.json()
        if not programs and not health["calls_open"]:
            return
        if time.monotonic() > until:
            found.problems.append(f"left: {health['calls_open']} calls, programs {sorted(programs)[:5]}")
            return
        await asyncio.sleep(0.1)


async def _stopped(process: asyncio.subprocess.Process, found: Found) -> None:
    code = await _end(process, signal.SIGTERM)
    if code:
        found.problems.append(f"the gateway ended with {code}")


def judge(folder: Path, found: Found) -> None:
    """Whether the decisions name one end for every call and program."""
    arrived: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    living: set[str] = set()
    ends = Counter({"finished": 0, "failed": 0, "cancelled": 0})
    for decision in open_run(folder).decisions():
        match decision.event:
            case CallArrived(call_id=call):
                arrived[call] += 1
            case CallFinished(call_id=call):
                ended[call] += 1
                ends["finished"] += 1
            case CallFailed(call_id=call, reason=reason):
                ended[call] += 1
                ends["cancelled" if reason == "cancelled" else "failed"] += 1
            case ProgramArrived(program_id=name):
                living ^= {name}  # twice without an end shows as none
            case ProgramFinished(program_id=name):
                living ^= {name}
    found.ends = dict(ends)
    if arrived != ended or set(arrived.values()) - {1}:
        found.problems.append(
            f"calls without exactly one end: {sorted((arrived - ended) + (ended - arrived))}"
        )
    if living:
        found.problems.append(f"programs without an end: {sorted(living)[:5]}")
    if ends.total() > sum(found.heard.values()):  # a client may leave before its call arrives, not after
        found.problems.append(f"{ends.total()} calls of {sum(found.heard.values())} requests")


def table(name: str, found: Found) -> str:
    """For people."""
    told = {
        "requests": f"{found.requests:,} in {found.took_s:.1f} s ({found.requests / found.took_s:,.0f}/s)",
        "clients heard": ", ".join(f"{found.heard[key]:,} x {key}" for key in sorted(found.heard)),
        "calls ended": ", ".join(f"{count:,} {end}" for end, count in found.ends.items()),
        "servers killed": f"{found.killed}",
        "gateway's memory, MB": " -> ".join(f"{size:.1f}" for size in found.memory_mb),
        "events replayed": f"{found.events_replayed:,}, all the same",
        "problems": "; ".join(found.problems) or "none",
    }
    return "\n".join([name, *(f"  {key:22}{value}" for key, value in told.items())])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of the soak")
    parser.add_argument("--programs", type=int, default=PROGRAMS, help="of the storm")
    parser.add_argument("--calls", type=int, default=CALLS, help="of each program of the storm")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        blown = storm(folder / "storm", programs=asked.programs, calls=asked.calls, seed=asked.seed)
        found = {"storm": uvloop.run(blown)}
        found["soak"] = uvloop.run(soak(folder / "soak", requests=asked.requests, seed=asked.seed))
    if asked.json:
        print(json.dumps({name: asdict(one) for name, one in found.items()}, indent=2))
    else:
        print("\n".join(table(name, one) for name, one in found.items()))
    sys.exit(any(one.problems for one in found.values()))


if __name__ == "__main__":
    main()
