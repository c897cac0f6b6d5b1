"""What the gateway costs: `python -m tests.bench.gateway [--json] [--seconds S]`.

A trivial server in one process, a client in another, and the gateway with `thunder` between them in a
third: the same requests directly and through it, taking turns, so that a slow moment of the machine falls
on both. Measured are one client at a time (median latency) and 32 (requests per second), each with
plain answers and with streams of 33 events, and the gateway's memory while it holds 2,000 open streams.
The server and client are aiohttp on uvloop; all three share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

EVENTS = 33
CLIENTS = 32
STREAMS = 2000
CASES = (("plain", 1), ("stream", 1), ("plain", CLIENTS), ("stream", CLIENTS))

# name -> limit, and whether more is better
TARGETS = {
    "stream x32 through, requests/s": (1000.0, True),
    "plain x1 added p50, ms": (0.6, False),
    "stream x1 added p50, ms": (0.8, False),
    "open streams, MB": (300.0, False),
}

_USAGE = {"prompt_tokens": 200, "completion_tokens": 32, "total_tokens": 232}
_METRICS = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="1000000"} 1.0\n'


def _event(content: str) -> bytes:
    data = {"id": "c", "object": "chat.completion.chunk", "model": "m"}
    choices = [{"index": 0, "delta": {"content": content}, "finish_reason": None}]
    return b"data: " + json.dumps({**data, "choices": choices}).encode() + b"\n\n"


CHUNKS = [*(_event(f"token {number} ") for number in range(EVENTS - 2))]
CHUNKS.append(b"data: " + json.dumps({"choices": [], "usage": _USAGE}).encode() + b"\n\n")
CHUNKS.append(b"data: [DONE]\n\n")
PLAIN = json.dumps({"choices": [{"message": {"content": "text " * 40}}], "usage": _USAGE}).encode()


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    """The trivial server. A stream of a model called `endless` stays open after its first event."""
    if request.path == "/metrics":
        return web.Response(text=_METRICS)
    if request.path == "/health":
        return web.Response()
    asked = json.loads(await request.read())
    if not asked.get("stream"):
        return web.Response(body=PLAIN, content_type="application/json")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for chunk in CHUNKS:
        await response.write(chunk)
        if asked["model"] == "endless":
            await asyncio.Event().wait()
    await response.write_eof()
    return response


async def serve() -> None:
    """Listen on a free port, print it, and go on until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(web.Server(answer, access_log=None), "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"address": f"http://127.0.0.1:{port}"}), flush=True)
    await asyncio.Event().wait()


def body_of(kind: str, program: str, model: str = "m") -> bytes:
    """A call with a prompt of some 800 bytes."""
    messages = [
        {"role": "system", "content": "You fix bugs. " * 40},
        {"role": "user", "content": "Go. " * 50},
    ]
    stream = {"stream": True, "stream_options": {"include_usage": True}} if kind == "stream" else {}
    return json.dumps({"model": model, "messages": messages, "program_id": program, **stream}).encode()


async def play(url: str, kind: str, clients: int, seconds: float) -> dict[str, float]:
    """So many clients, one call after the other, for some seconds."""
    took: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client(number: int, until: float) -> None:
            body = body_of(kind, f"p{number}")
            while time.perf_counter() < until:
                began = time.perf_counter()
                async with session.post(f"{url}/v1/chat/completions", data=body) as response:
                    size = 0
                    async for chunk in response.content.iter_any():
                        size += len(chunk)
                if response.status != 200 or size < len(PLAIN):
                    raise RuntimeError(f"{response.status} with {size} bytes")
                took.append(time.perf_counter() - began)

        await asyncio.gather(*(client(number, time.perf_counter() + 0.2) for number in range(clients)))
        took.clear()  # that was to warm up
        began = time.perf_counter()
        await asyncio.gather(*(client(number, began + seconds) for number in range(clients)))
        elapsed = time.perf_counter() - began
    return {"p50_ms": statistics.median(took) * 1e3, "per_s": len(took) / elapsed}


async def hold(url: str, streams: int, pid: int) -> float:
    """Open so many streams at once; the memory of process `pid` while they are, in MB."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=_PATIENT) as session:

        async def stream(number: int, opened: asyncio.Semaphore) -> aiohttp.ClientResponse:
            async with opened:
                body = body_of("stream", f"s{number}", "endless")
                response = await session.post(f"{url}/v1/chat/completions", data=body)
                await response.content.readany()
                return response

        opened = asyncio.Semaphore(100)
        responses = await asyncio.gather(*(stream(number, opened) for number in range(streams)))
        held = resident_mb(pid)
        for response in responses:
            response.close()
    return held


_PATIENT = aiohttp.ClientTimeout(total=120)


def resident_mb(pid: int) -> float:
    """Memory of a process, in MB."""
    statm = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def process(*command: str) -> Iterator[tuple[int, str]]:
    """A process that tells its address in its first line; it is ended by its id."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            yield started.pid, json.loads(started.stdout.readline())["address"]
        finally:
            started.terminate()


def in_client(*words: object) -> dict[str, float]:
    """A measurement, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.gateway", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


@contextmanager
def both() -> Iterator[tuple[str, str, int]]:
    """Addresses of server and gateway, and the gateway's process id."""
    gateway = ("-c", "from harness.cli import main; main()", "serve", "--json", "--port", "0")
    with (
        process("-m", "tests.bench.gateway", "--serve") as (_, direct),
        process(*gateway, "--scheduler", "thunder", "--backend", direct) as (pid, through),
    ):
        yield direct, through, pid


def measure(seconds: float, rounds: int, streams: int) -> dict[str, float]:
    """All figures, by name."""
    found: dict[str, float] = {}
    with both() as (direct, through, pid):
        for kind, clients in CASES:
            runs: dict[str, list[dict[str, float]]] = {"direct": [], "through": []}
            for number in range(rounds):
                pair = [("direct", direct), ("through", through)]
                for name, url in pair if number % 2 == 0 else reversed(pair):
                    runs[name].append(in_client("--play", url, kind, clients, seconds))
            for name, of in runs.items():
                for figure in ("p50_ms", "per_s"):
                    found[f"{kind} x{clients} {name}, {_UNITS[figure]}"] = statistics.median(
                        run[figure] for run in of
                    )
        found["idle, MB"] = resident_mb(pid)
        found["open streams, MB"] = in_client("--hold", through, streams, pid)["mb"]
    for kind in ("plain", "stream"):
        added = found[f"{kind} x1 through, ms"] - found[f"{kind} x1 direct, ms"]
        found[f"{kind} x1 added p50, ms"] = added
    return found


_UNITS = {"p50_ms": "ms", "per_s": "requests/s"}


def table(found: dict[str, float], streams: int) -> str:
    """The figures for people."""
    lines = [f"{'':28}{'direct':>12}{'through':>12}{'ratio':>8}"]
    for kind, clients in CASES:
        figure = "ms" if clients == 1 else "requests/s"
        direct, through = (found[f"{kind} x{clients} {name}, {figure}"] for name in ("direct", "through"))
        label = f"{kind}, {clients} client{'s' * (clients > 1)}, {'p50 ms' if clients == 1 else 'req/s'}"
        digits = 3 if clients == 1 else 0
        lines.append(f"{label:28}{direct:12.{digits}f}{through:12.{digits}f}{through / direct:8.2f}")
    lines.append(
        f"{streams} open streams: {found['open streams, MB']:.0f} MB (idle {found['idle, MB']:.0f} MB)"
    )
    for name, (limit, more) in TARGETS.items():
        met = found[name] >= limit if more else found[name] <= limit
        bound = "at least" if more else "at most"
        lines.append(f"{'met ' if met else 'MISSED'}  {name}: {found[name]:.2f} ({bound} {limit:g})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind; medians are told")
    parser.add_argument("--streams", type=int, default=STREAMS, help="open streams held")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--play", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--hold", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if asked.serve:
        uvloop.run(serve())
    elif asked.play:
        url, kind, clients, seconds = asked.play
        print(json.dumps(uvloop.run(play(url, kind, int(clients), float(seconds)))))
    elif asked.hold:
        url, streams, pid = asked.hold
        print(json.dumps({"mb": uvloop.run(hold(url, int(streams), int(pid)))}))
    else:
        found = measure(asked.seconds, asked.rounds, asked.streams)
        print(json.dumps(found, indent=2) if asked.json else table(found, asked.streams))


if __name__ == "__main__":
    main()
