"""vLLM servers that the harness starts, waits for and ends.

    with Servers(ServerOptions(model="/models/qwen"), replicas=2, logs=folder, view=print) as servers:
        servers.urls          # one per replica, all of them answering

Each replica is one server process below a warden (`warden.py`), which ends it when the harness is gone,
however it went. What differs between replicas (port, GPUs, socket of the engine hooks) stands in the
command; what they share stands in the environment, so that no secret of it shows in a list of processes.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket as sockets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import EngineFailed, SetupError
from harness.live import warden
from harness.live.server_log import last_lines, why

HOOKED_SCHEDULER = "harness.live.vllm_hooks.HookedScheduler"
HOOKS_VARIABLE = "THUNDERBENCH_HOOKS"
ROOT = Path(__file__).resolve().parents[2]  # where `harness` is imported from

POLL_S = 0.1
TELL_EVERY_S = 5.0
HEALTH_TIMEOUT_S = 2.0
STOP_GRACE_S = 15.0  # between SIGTERM and SIGKILL
WARDEN_GRACE_S = 10.0  # beyond that, for the warden to see that nothing is left

# For every server: no reports to vLLM's makers, logs as they come, and the route that empties the prefix
# cache, which vLLM offers in this mode only. Loopback is what makes that mode safe.
ALWAYS = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_SERVER_DEV_MODE": "1",
    "PYTHONUNBUFFERED": "1",
}
# Without a GPU: one GiB of KV cache is plenty for small models. Several servers share the cores, so none
# binds threads to them.
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}

View = Callable[[str], None]
Build = Callable[["ServerOptions", int, int, Path | None], list[str]]


class ServerOptions(BaseModel):
    """How to start each server. Null leaves the choice to vLLM; names are those of its options."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str  # folder with config.json, or a name on the Hugging Face hub
    served_model_name: str | None = None  # what clients call it; null: as `model`
    tensor_parallel_size: int = Field(1, ge=1)  # GPUs per replica
    gpus: tuple[tuple[int, ...], ...] | None = None  # of each replica; null: CPU, or all of them
    port: int = Field(0, ge=0, le=65535)  # of the first replica, the others follow; 0: free ones
    host: str = "127.0.0.1"  # address to listen on
    load_format: str | None = None  # `dummy`: random weights
    kv_cache_dtype: str | None = None  # such as fp8
    num_gpu_blocks_override: int | None = Field(None, ge=2)  # blocks of KV cache
    block_size: int | None = Field(None, ge=1)  # tokens per block; on CPU a multiple of 32
    max_model_len: int | None = Field(None, ge=1)  # tokens of the longest context
    max_num_seqs: int | None = Field(None, ge=1)  # calls in one step
    max_num_batched_tokens: int | None = Field(None, ge=1)  # tokens in one step
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)  # share of the memory to use
    kv_offloading_size: float | None = Field(None, gt=0)  # GiB of CPU memory for offloaded KV
    scheduling_policy: Literal["fcfs", "priority"] | None = None  # `priority` for schedulers that give one
    hooks: bool = False  # pins and the like (harness.live.vllm_hooks)
    extra_args: tuple[str, ...] = ()  # added at the end of the command
    environment: dict[str, str] = Field(default_factory=dict)  # wins over the harness's own
    ready_timeout_s: float = Field(900.0, gt=0)  # seconds a server may take to answer


_OPTIONS = (
    "load_format",
    "kv_cache_dtype",
    "num_gpu_blocks_override",
    "block_size",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "kv_offloading_size",
    "scheduling_policy",
)


def command(options: ServerOptions, replica_index: int, port: int, socket: Path | None) -> list[str]:
    """The command of one replica; `socket` is that of its engine hooks, null without them.

    The module and not `vllm serve`: that one wants a distribution called vllm, which CPU builds are not.
    """
    own = []
    if options.gpus is not None:
        own.append(f"CUDA_VISIBLE_DEVICES={','.join(map(str, options.gpus[replica_index]))}")
    if socket is not None:
        own.append(f"{HOOKS_VARIABLE}=unix:{socket}")
    words = ["env", *own] if own else []
    words += [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", options.model]
    words += ["--host", options.host, "--port", str(port)]
    words += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    if options.served_model_name is not None:
        words += ["--served-model-name", options.served_model_name]
    if options.tensor_parallel_size > 1:
        words += ["--tensor-parallel-size", str(options.tensor_parallel_size)]
    for name in _OPTIONS:
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if socket is not None:
        words += ["--scheduler-cls", HOOKED_SCHEDULER]
    return [*words, *options.extra_args]


def environment(
    options: ServerOptions, replicas: int, inherited: Mapping[str, str], *, has_gpu: bool, cores: int
) -> dict[str, str]:
    """What every replica finds in its environment: `options.environment`, else `inherited`, else ours."""
    ours = dict(ALWAYS)
    if Path(options.model).is_dir():
        ours["HF_HUB_OFFLINE"] = "1"
    if not has_gpu:
        ours |= ON_CPU | {"OMP_NUM_THREADS": str(max(cores // replicas, 1))}
    found = {**ours, **inherited, **options.environment}
    if options.hooks:
        path = found.get("PYTHONPATH")
        found["PYTHONPATH"] = f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)
    return found


def has_gpu() -> bool:
    """Whether this machine shows a GPU of NVIDIA or AMD."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def refuse(options: ServerOptions, replicas: int, *, has_gpu: bool) -> None:
    """Raise `SetupError` for options that cannot start so many replicas."""
    if replicas < 1:
        raise SetupError(f"{replicas} replicas", "at least one")
    if options.gpus is None:
        if has_gpu and replicas > 1:
            raise SetupError(
                f"{replicas} replicas and no GPUs named: each would take the first one",
                "a list of GPUs for each replica, such as [[0], [1]]",
            )
        return
    if len(options.gpus) != replicas:
        raise SetupError(
            f"GPUs of {len(options.gpus)} replicas for {replicas}", "a list of GPUs for each replica"
        )
    for index, gpus in enumerate(options.gpus):
        if len(gpus) != options.tensor_parallel_size:
            raise SetupError(
                f"replica {index} on GPUs {list(gpus)} with tensor_parallel_size "
                f"{options.tensor_parallel_size}",
                "as many GPUs as tensor_parallel_size",
            )


class _Replica(NamedTuple):
    """A started server: `process` is its warden."""

    name: str
    host: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def ending(self) -> str:
        """How and why it ended."""
        code = self.process.returncode
        number = -code if code < 0 else code - 128 if code > 128 else 0
        if number in signal.valid_signals():
            how = f"by {signal.Signals(number).name}"
            how += " (out of memory?)" if number == signal.SIGKILL else ""
        else:
            how = f"with exit code {code}"
        return f"{self.name} ended {how}: {why(self.log)} (log: {self.log})"


class Servers:
    """So many replicas, all answering inside the `with` block and all gone after it.

    `logs` is the folder of the logs, one `server-<n>.log` per replica. `view` is told in words what is
    being waited for, every few seconds. `build` makes the commands (tests start something smaller).

    Ordinary code, not asyncio: entering takes as long as the slowest server. Raises `SetupError`, with the
    error that the server's log names, when one ends before it answers or does not answer in time.
    """

    def __init__(
        self,
        options: ServerOptions,
        replicas: int,
        logs: Path,
        view: View = lambda _: None,
        *,
        build: Build = command,
        stop_grace_s: float = STOP_GRACE_S,
    ) -> None:
        self._gpu = has_gpu()
        refuse(options, replicas, has_gpu=self._gpu)
        self._options, self._count, self._logs, self._view = options, replicas, logs, view
        self._build, self._grace_s = build, stop_grace_s
        self._replicas: list[_Replica] = []
        self._sockets: Path | None = None
        self.commands: list[list[str]] = []  # of the replicas, as started
        self.start_s: list[float] = []  # seconds until each answered, the first one first

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URL of each replica, without `/v1`."""
        return tuple(replica.url for replica in self._replicas)

    @property
    def hook_addresses(self) -> tuple[str, ...]:
        """Where each replica listens for engine hooks, `unix:<path>`; none without hooks."""
        if self._sockets is None:
            return ()
        return tuple(f"unix:{self._socket(index)}" for index in range(self._count))

    @property
    def pids(self) -> tuple[int, ...]:
        """Process of each replica's warden; everything of the server is below it."""
        return tuple(replica.process.pid for replica in self._replicas)

    def alive(self) -> bool:
        """Whether no server has ended."""
        return all(replica.process.poll() is None for replica in self._replicas)

    def failure(self) -> EngineFailed | None:
        """Which servers have ended, how and why; null while all run."""
        ended = [replica.ending() for replica in self._replicas if replica.process.poll() is not None]
        return EngineFailed("; ".join(ended)) if ended else None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self.stop)
            self._start()
            self._wait()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all servers, and wait until no process of theirs is left. Again: without effect.

        Their wardens go on with it when this is interrupted.
        """
        for replica in self._replicas:
            _stdin(replica.process).close()
            replica.process.terminate()
        deadline = time.monotonic() + self._grace_s + WARDEN_GRACE_S
        for replica in self._replicas:
            _await_end(replica.process, max(deadline - time.monotonic(), 0.0))
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def _start(self) -> None:
        options = self._options
        self._logs.mkdir(parents=True, exist_ok=True)
        if options.hooks:
            # Not among the logs: the path of a socket may have 107 characters.
            self._sockets = Path(tempfile.mkdtemp(prefix="thunderbench-"))
        found = environment(options, self._count, os.environ, has_gpu=self._gpu, cores=os.cpu_count() or 1)
        for index, port in enumerate(_ports(options, self._count)):
            words = self._build(options, index, port, self._socket(index))
            log = self._logs / f"server-{index}.log"
            self.commands.append(words)
            with log.open("wb") as out:
                process = _under_warden(words, found, out, self._grace_s)
            self._replicas.append(_Replica(f"server {index}", options.host, port, log, process))
        self._view(f"starting {self._count} x {options.model}, logs in {self._logs}")

    def _socket(self, index: int) -> Path | None:
        return None if self._sockets is None else self._sockets / f"{index}.sock"

    def _wait(self) -> None:
        """Return when every replica answers."""
        begin = told = time.monotonic()
        waiting = list(self._replicas)
        while waiting:
            now = time.monotonic()
            for replica in list(waiting):
                if replica.process.poll() is not None:
                    raise SetupError(replica.ending(), "a server that starts")
                if _answers(replica.host, replica.port):
                    waiting.remove(replica)
                    self.start_s.append(now - begin)
                    self._view(f"{replica.name} answers at {replica.url} after {now - begin:.0f} s")
            if waiting and now - begin > self._options.ready_timeout_s:
                self._time_out(waiting[0])
            if waiting and now - told >= TELL_EVERY_S:
                told = now
                for replica in waiting:
                    doing = "".join(last_lines(replica.log)[-1:]) or "nothing logged yet"
                    self._view(f"waiting for {replica.name} for {now - begin:.0f} s: {doing}")
            if waiting:
                with suppress(subprocess.TimeoutExpired):
                    waiting[0].process.wait(POLL_S)

    def _time_out(self, replica: _Replica) -> None:
        raise SetupError(
            f"{replica.name} does not answer {replica.url}/health after "
            f"{self._options.ready_timeout_s:g} s: {why(replica.log)} (log: {replica.log})",
            "a server that is ready in that time",
            "Raise ready_timeout_s if it was still loading.",
        )


def _under_warden(
    words: list[str], found: Mapping[str, str], out: IO[bytes], grace_s: float
) -> subprocess.Popen[bytes]:
    """Start a command below a warden, which reads our pipe and ends when that does.

    In a session of its own: Ctrl-C reaches the harness alone, which then ends the servers in order.
    """
    script = [sys.executable, "-I", "-S", str(Path(warden.__file__).resolve())]
    return subprocess.Popen(  # noqa: S603 - the command is the user's own
        [*script, "--grace", str(grace_s), "--", *words],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=subprocess.STDOUT,
        env=found,
        start_new_session=True,
    )


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None, "started with a pipe"
    return process.stdin


def _await_end(process: subprocess.Popen[bytes], for_s: float) -> None:
    try:
        process.wait(for_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.returncode == -signal.SIGKILL:
        # The warden was killed, and saw nothing end: what is left is in its group. It is gone when no
        # signal finds it; an init that never reaps would keep it there for ever, hence the bound.
        deadline = time.monotonic() + WARDEN_GRACE_S
        with suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(process.pid, signal.SIGKILL)
                time.sleep(POLL_S)


def _answers(host: str, port: int) -> bool:
    """Whether `/health` says 200. `http.client` and not `urllib`, which would ask a proxy."""
    connection = http.client.HTTPConnection(host, port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _ports(options: ServerOptions, replicas: int) -> list[int]:
    """A port per replica that nobody listens on now."""
    wanted = [options.port + index if options.port else 0 for index in range(replicas)]
    with ExitStack() as held:
        found = []
        for port in wanted:
            listener = held.enter_context(sockets.socket())
            listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
            try:
                listener.bind((options.host, port))
            except (OSError, OverflowError) as error:
                raise SetupError(
                    f"port {port} of {options.host} cannot be had ({error})",
                    f"{replicas} free ports from {options.port}",
                    "Choose another port, or 0 for free ones.",
                ) from error
            found.append(listener.getsockname()[1])
    return found
