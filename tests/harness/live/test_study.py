"""The servers of a study are started with what its schedulers need, and only for studies that start any."""

import pytest

from harness.live import study
from harness.live.server_command import ServerOptions
from harness.live.study import reachable, server_options
from harness.resolve import resolve
from harness.settings import validated


@pytest.fixture
def model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


def spec(model, **more):
    live = {"model_path": model, **more.pop("live", {})}
    return resolve(validated({"backend": "vllm", "live": live, "concurrency": 2, **more}))


def test_plain_schedulers_need_nothing_special(model):
    found = server_options(spec(model, schedulers=["vllm", "thunder"]))
    assert found == ServerOptions(model=model, served_model_name="thunderbench", ready_timeout_s=600.0)


def test_pins_and_priorities_are_started_where_a_scheduler_needs_them(model):
    found = server_options(spec(model, schedulers=["vllm", "continuum"]))
    assert (found.hooks, found.scheduling_policy) == (True, "priority")


def test_what_the_user_says_reaches_the_server(model):
    live = {
        "hooks": "on",
        "gpus": "0,1;2,3",
        "tensor_parallel_size": 2,
        "port": 9100,
        "load_format": "dummy",
        "num_gpu_blocks_override": 64,
        "max_model_len": 4096,
        "kv_offloading_size": 8.0,
        "served_model": "mine",
        "server_args": "--enforce-eager",
        "ready_timeout_s": 60,
    }
    engine = {
        "block_size": 32,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 512,
        "scheduling_policy": "fcfs",
    }
    more = {"engine": engine, "kv_dtype": "fp8", "gpu_memory_utilization": 0.8, "replicas": 2}
    assert server_options(spec(model, schedulers=["vllm"], live=live, **more)) == ServerOptions(
        model=model,
        served_model_name="mine",
        tensor_parallel_size=2,
        gpus=((0, 1), (2, 3)),
        port=9100,
        load_format="dummy",
        kv_cache_dtype="fp8",
        num_gpu_blocks_override=64,
        block_size=32,
        max_model_len=4096,
        max_num_seqs=8,
        max_num_batched_tokens=512,
        gpu_memory_utilization=0.8,
        kv_offloading_size=8.0,
        scheduling_policy="fcfs",
        hooks=True,
        extra_args=("--enforce-eager",),
        ready_timeout_s=60.0,
    )


class FakeServers:
    """Stands for two servers: real ones are in test_real_vllm.py."""

    hook_addresses = ("unix:/tmp/0.sock", "unix:/tmp/1.sock")
    urls = ("http://127.0.0.1:1001", "http://127.0.0.1:1002")
    stopped = False
    failure = staticmethod(lambda: None)

    def __init__(self, options, replicas, logs, view):  # noqa: ARG002 - as Servers has it
        FakeServers.made = (options, replicas, logs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        FakeServers.stopped = True


def test_a_study_finds_its_servers_where_they_listen_and_ends_them(model, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "Servers", FakeServers)
    wanted = spec(model, schedulers=["continuum"], replicas=2)
    with reachable(wanted, tmp_path, print) as (known, failure):
        assert failure is FakeServers.failure
        assert known.live.urls == (
            "http://127.0.0.1:1001#hooks=unix:/tmp/0.sock",
            "http://127.0.0.1:1002#hooks=unix:/tmp/1.sock",
        )
        assert known.live.served_model == "thunderbench"
        assert not FakeServers.stopped
    assert FakeServers.stopped
    assert FakeServers.made == (server_options(wanted), 2, tmp_path)


def test_attached_servers_and_simulated_ones_are_left_alone(tmp_path):
    attached = resolve(validated({"backend": "http://127.0.0.1:1", "concurrency": 2}))
    simulated = resolve(validated({"concurrency": 2}))
    for wanted in (attached, simulated):
        with reachable(wanted, tmp_path, print) as (known, failure):
            assert (known, failure()) == (wanted, None)
