"""Settings of a gateway: flags over environment over file over defaults, and one line for what is wrong."""

import tomllib

import pytest

from harness.errors import SetupError
from harness.live.config import ServeSpec, read_serve_spec
from harness.live.hook_messages import is_loopback
from harness.live.limits import Limits
from harness.live_spec import Server

URL = "http://127.0.0.1:8000"


def test_flags_win_over_environment_over_file_over_defaults(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text(f'backends = ["{URL}"]\nidle_ttl_s = 1\nport = 1\nseed = 1\nscheduler = "vllm"\n')
    environment = {"THUNDERBENCH_PORT": "2", "THUNDERBENCH_SEED": "2", "THUNDERBENCH_DRAIN_TIMEOUT": "1m"}
    environment |= {"THUNDERBENCH_JOBS": "3", "THUNDERBENCH_CONCURRENCY": "9", "PATH": "x"}
    flags = {"seed": 3, "host": None}
    spec = read_serve_spec(flags, ["scheduler.vllm.router=least_busy"], file=file, environment=environment)
    told = {"backends": (URL,), "idle_ttl_s": 1, "port": 2, "seed": 3, "drain_timeout_s": 60.0}
    overrides = {"scheduler": {"vllm": {"router": "least_busy"}}}
    assert spec == ServeSpec(**told, scheduler="vllm", overrides=overrides)


def test_the_environment_lists_backends():
    spec = read_serve_spec({}, environment={"THUNDERBENCH_BACKEND": f"{URL}, http://b:1#hooks=unix:/s"})
    assert spec.servers == {"r0": Server(URL, None), "r1": Server("http://b:1", "unix:/s")}


def test_a_spec_reads_back_from_its_toml_without_the_folder():
    spec = ServeSpec(
        backends=[URL],
        output_dir="x",
        kv_tokens=5,
        body_limit_bytes="3kB",
        overrides={"scheduler": {"thunder": {"delta_t_s": 2.5}}},
    )
    assert ServeSpec(**tomllib.loads(spec.toml())) == spec.model_copy(update={"output_dir": None})


def test_limits_are_those_of_the_spec():
    spec = ServeSpec(backends=[URL], read_timeout_s=1, write_timeout_s="2s", keep_alive_timeout_s=3)
    assert spec.limits == Limits(read_s=1, write_s=2, keep_alive_s=3)


@pytest.mark.parametrize(("text", "size"), [("1000", 1000), ("2kB", 2000), ("64MiB", 64 << 20), (5, 5)])
def test_sizes(text, size):
    assert ServeSpec(backends=[URL], body_limit_bytes=text).body_limit_bytes == size


@pytest.mark.parametrize(
    ("host", "mine"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)),
        *(("::", False), ("10.0.0.1", False), ("example.org", False)),
    ],
)
def test_only_this_machine_reaches_loopback(host, mine):
    assert is_loopback(host) is mine
    if mine:
        ServeSpec(backends=[URL], host=host)
    else:
        with pytest.raises(ValueError, match="--api-key-env NAME"):
            ServeSpec(backends=[URL], host=host)
        ServeSpec(backends=[URL], host=host, api_key_env="KEY")
        ServeSpec(backends=[URL], host=host, insecure=True)


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        ({}, {}, "no --backend; expected the address of a server"),
        ({"backends": [URL, URL]}, {}, f"expected every backend once, {URL} is there twice"),
        ({"backends": [URL], "port": "x"}, {}, "port = 'x'; expected a valid integer"),
        (
            {"backends": [URL], "idle_ttl_s": "soon"},
            {},
            "idle_ttl_s = 'soon'; expected a duration such as 90",
        ),
        ({"backends": [URL]}, {"THUNDERBENCH_IDLE_TTLS": "1"}, "Did you mean idle_ttl"),
        ({"backends": [URL], "prt": 1}, {}, "unknown setting prt; expected one of scheduler, backends"),
    ],
)
def test_what_is_wrong_is_one_line(flags, environment, said):
    with pytest.raises(SetupError) as refused:
        read_serve_spec(flags, environment=environment)
    assert said in str(refused.value)


def test_files_that_cannot_be_read_and_strangers_settings_are_refused(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text("= 1")
    with pytest.raises(SetupError, match="expected valid TOML"):
        read_serve_spec({}, file=file, environment={})
    with pytest.raises(SetupError, match="expected a readable TOML file"):
        read_serve_spec({}, file=tmp_path / "none.toml", environment={})
    with pytest.raises(SetupError, match="settings of thunder only, not of vllm"):
        read_serve_spec({"backends": [URL]}, ["scheduler.vllm.router=x"], environment={})
