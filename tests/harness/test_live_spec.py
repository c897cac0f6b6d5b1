"""What `--backend` may say, and what becomes of it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.live_spec import LiveSpec, Server, read_url
from harness.spec import RunKey, RunSpec

A, B = "http://gpu1:8000", "http://gpu2:8000"


def spec(**given: Any) -> RunSpec:
    return RunSpec.model_validate(given)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("http://gpu1:8000", Server(A, None)),
        (" http://gpu1:8000/ ", Server(A, None)),
        ("http://gpu1:8000/v1/", Server(A, None)),
        ("https://host/models/a", Server("https://host/models/a", None)),
        ("http://gpu1:8000#hooks=unix:/run/h.sock", Server(A, "unix:/run/h.sock")),
        ("http://[::1]:8000#hooks=tcp:127.0.0.1:7700", Server("http://[::1]:8000", "tcp:127.0.0.1:7700")),
    ],
)
def test_an_address_has_one_spelling_and_may_say_where_its_hooks_listen(text: str, server: Server) -> None:
    assert read_url(text) == server
    assert LiveSpec.model_validate({"urls": text}).servers == (server,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpu1:8000", "an address such as"),
        ("ftp://gpu1", "an address such as"),
        ("http://", "an address such as"),
        ("http://gpu1:port", "an address such as"),
        ("http://gpu1:99999", "an address such as"),
        ("http://gpu1?key=1", "an address such as"),
        ("http://user:secret@gpu1", "without a user and password"),
        ("http://gpu1#hooks=unix:", "nothing but hooks="),
        ("http://gpu1#pins=tcp:a:1", "nothing but hooks="),
    ],
)
def test_what_is_no_address_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LiveSpec.model_validate({"urls": [text]})


@pytest.mark.parametrize(
    ("said", "backend", "urls", "schedulers"),
    [
        (None, "virtual", None, ("thunder", "vllm")),
        ("sim", "virtual", None, ("thunder", "vllm")),
        (("virtual",), "virtual", None, ("thunder", "vllm")),
        ("vllm-core", "vllm-core", None, ("thunder", "vllm")),
        ("vllm", "vllm", (), ("thunder", "vllm")),
        (A, "servers", (A,), ("thunder", "vllm")),
        (f"{A},{B}", "servers", (A, B), ("thunder", "vllm")),
        ((A, B), "servers", (A, B), ("thunder", "vllm")),
        ((f"external:{A}/",), "servers", (), (f"external:{A}",)),
        ((A, f"external:{B}"), "servers", (A,), ("thunder", "vllm", f"external:{B}")),
        (("vllm", f"external:{B}"), "vllm", (), ("thunder", "vllm", f"external:{B}")),
    ],
)
def test_a_backend_becomes_one_word_addresses_and_arms(
    said: Any, backend: str, urls: tuple[str, ...] | None, schedulers: tuple[str, ...]
) -> None:
    found = spec() if said is None else spec(backend=said)
    assert (found.backend, found.schedulers) == (backend, schedulers)
    assert (None if found.live is None else found.live.urls) == urls
    assert spec(**tomllib.loads(found.toml())) == found


def test_a_gateway_joins_the_schedulers_that_are_named_and_brings_no_arm_twice() -> None:
    found = spec(backend=(A, f"external:{B}"), schedulers=("vllm", f"external:{B}"))
    assert found.schedulers == ("vllm", f"external:{B}")
    assert found.own_schedulers == ("vllm",)
    alone = spec(backend=f"external:{B}", schedulers="vllm", live={"urls": [A]})
    assert (alone.schedulers, alone.live and alone.live.urls) == (("vllm", f"external:{B}"), (A,))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backend": ("vllm", A)}, "one backend, not vllm and servers"),
        ({"backend": ("virtual", f"external:{A}")}, f"a live backend for external:{A}, not virtual"),
        ({"backend": "virtual", "live": {}}, "settings of live for the backends vllm and servers only"),
        ({"backend": "vllm", "live": {"urls": A}}, "live.urls for the backend servers only"),
        ({"backend": "servers"}, "live.urls: the address of a server"),
        ({"backend": (f"external:{A}",), "schedulers": "vllm"}, "live.urls: the address of a server"),
        ({"backend": (A, f"{A}/v1")}, "every server once, http://gpu1:8000 is there twice"),
        ({"backend": f"external:{A}#hooks=tcp:a:1"}, "no hooks of a gateway that is not ours"),
        ({"backend": A, "live": {"gpus": "0, 1"}}, "the GPUs of one replica, such as 0,1"),
        ({"backend": A, "live": {"identity_headers": "X Id"}}, "the name of a header"),
        ({"backend": A, "live": {"retries": -1}}, "greater than or equal to 0"),
        ({"backend": A, "live": {"apis": "chat"}}, "Extra inputs"),
    ],
)
def test_what_does_not_fit_together_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        spec(**given)


def test_lists_may_be_written_as_texts() -> None:
    live = LiveSpec.model_validate(
        {
            "gpus": "0,1;2,3",
            "server_args": "--dtype bfloat16 --hf-overrides '{\"a\": 1}'",
            "identity_headers": "X-A,X-B",
            "ready_timeout_s": "5m",
        }
    )
    assert live.gpus == ("0,1", "2,3")
    assert live.server_args == ("--dtype", "bfloat16", "--hf-overrides", '{"a": 1}')
    assert (live.identity_headers, live.ready_timeout_s) == (("X-A", "X-B"), 300.0)


def test_folders_are_named_after_a_gateway_s_host_and_stay_short_and_different() -> None:
    key = RunKey("external:http://127.0.0.1:9000", "concurrency", 96, 1)
    assert key.name == "external_127.0.0.1_9000-c96-s1"
    long = [key._replace(scheduler=f"external:http://{'a' * 60}{i}:9000").name for i in range(2)]
    assert len(set(long)) == 2
    assert all(len(name) <= 60 for name in long)


@given(st.text(min_size=1, max_size=80))
def test_names_of_folders_are_safe_whatever_the_gateway_is_called(place: str) -> None:
    name = RunKey(f"external:http://{place}", "concurrency", 1, 0).name
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert len(name) <= 60


def test_a_class_in_a_module_called_external_is_no_gateway() -> None:
    assert spec(schedulers="external:Mine").own_schedulers == ("external:Mine",)


def test_what_servers_know_better_is_no_part_of_a_live_spec() -> None:
    """Only what the user said of them is written down, and stays what the user said when read back."""
    found = spec(backend=A, kv_dtype="fp8", engine={"block_size": 32})
    written = tomllib.loads(found.toml())
    assert (written["kv_dtype"], written["engine"]) == ("fp8", {"block_size": 32})
    assert {"model", "hardware", "gpu_memory_utilization", "efficiency"}.isdisjoint(written)
    again = spec(**written)
    assert again == found
    assert again.vllm_options == found.vllm_options == {"kv_dtype": "fp8", "block_size": 32}
    assert spec(backend=A).vllm_options == {}
    assert "engine" not in tomllib.loads(spec(backend=A).toml())


def test_no_bound_is_played_on_real_servers() -> None:
    assert [key.scheduler for key in spec(backend=A).runs()] == ["thunder", "vllm"]
