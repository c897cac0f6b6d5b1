"""`thunderbench calibrate --backend URL`, against a server that answers at once.

What it measures there says nothing, so where constants matter the measurements are made up.
"""

from __future__ import annotations

import asyncio
import json
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from harness.calibrate.measure import Measured
from harness.commands import calibrate_server
from harness.profile_file import read_profile
from harness.settings import load_spec
from tests.harness.calibrate.fake_server import FakeServer
from tests.harness.calibrate.test_server_fit import TRUTH, measured
from tests.harness.commands.conftest import Invoke


@contextmanager
def serving(fake: FakeServer) -> Iterator[str]:
    """Its URL, while it runs on a thread of its own."""
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        async with fake:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert started.wait(30)
        yield fake.url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _made_up(*_: object, **_more: object) -> Measured:
    return Measured(
        measured(noise=0.002),
        cached_known=True,
        left_out=2,
        cut=1,
        rounds_cut=True,
        lag_s=0.0004,
        busy_share=0.12,
        seconds=33.0,
    )


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate_server, "measure", _made_up)


@pytest.mark.usefixtures("made_up")
def test_constants_errors_and_the_command_that_uses_them_are_told(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    with serving(FakeServer()) as url:
        result = invoke("calibrate", "--backend", url, "--hardware", "1xH200", "-o", file, "--no-progress")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"tiny at {url} (vLLM 0.32.0), KV cache 65,536 tokens" in result.stdout
    for words in (
        "46 sizes measured in 33 s: fitted to 33, judged by the 13 held out",
        "\nTTFT ",
        "\nTTFT, prompt cached ",
        "\nTPOT ",
        "0.40 ms at most in half",
        "2 measurements were left out",
        "Time ran out",
        f"(thunderbench run --backend sim --profile {file})",
    ):
        assert words in result.stdout
    settings = read_profile(file)
    assert settings | {"step_time": {}} == {
        "model": "tiny",
        "hardware": "1xH200",
        "kv_dtype": "auto",
        "kv_tokens": 65536,
        "engine": {"block_size": 128, "max_num_batched_tokens": 8192, "max_num_seqs": 1024},
        "step_time": {},
    }
    assert settings["step_time"]["compute_s_per_token"] == pytest.approx(TRUTH.compute_s_per_token, rel=0.1)
    written = tomllib.loads(file.read_text())["calibration"]
    assert (written["server"], written["server_version"], written["sizes"]) == (url, "0.32.0", 46)
    assert set(written["errors"]) == {"TTFT", "TTFT, prompt cached", "TPOT"}


@pytest.mark.usefixtures("made_up")
def test_the_profile_of_a_model_nobody_knows_is_played(invoke: Invoke, tmp_path: Path) -> None:
    file, folder = tmp_path / "profile.toml", tmp_path / "study"
    with serving(FakeServer()) as url:
        assert invoke("calibrate", "--backend", url, "-o", file, "--kv-tokens", "300000").exit_code == 0
    short = ("--scheduler", "vllm", "--concurrency", "2", "--duration", "5m", "--warmup", "1m")
    result = invoke("run", "--backend", "sim", "--profile", file, *short, "-o", folder, "--no-progress")
    assert result.exit_code == 0, result.stderr
    spec = load_spec(folder / "spec.toml")
    assert (spec.model, spec.backend, spec.kv_tokens, spec.efficiency) == (
        "tiny",
        "virtual",
        300_000,
        "given",
    )
    assert spec.step_time is not None
    assert spec.step_time.model_dump(exclude_none=True) == read_profile(file)["step_time"]


@pytest.mark.usefixtures("made_up")
def test_json_is_all_there_is_on_stdout(invoke: Invoke) -> None:
    with serving(FakeServer()) as url:
        result = invoke("calibrate", "--backend", url, "--json")
    found = json.loads(result.stdout)
    assert result.stderr == ""
    assert found["server"]["url"] == url
    assert len(found["points"]) == 46
    assert sum(point["held_out"] for point in found["points"]) == 13
    assert {each["name"]: each["identified"] for each in found["constants"]}["outside_s_per_call"]


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(invoke: Invoke, tmp_path: Path) -> None:
    fake = FakeServer()
    with serving(fake) as url:
        told = invoke("calibrate", "--backend", url, "--dry-run", "-o", tmp_path / "p.toml")
        counted = json.loads(invoke("calibrate", "--backend", url, "--dry-run", "--json").stdout)
    assert told.exit_code == 0
    assert "prefills: prompts of 32, 64, 128, 256, 512, 1,024, 2,048, 4,095 tokens" in told.stdout
    assert f"at most {counted['requests']:,} requests" in told.stdout
    assert fake.bodies == []
    assert not list(tmp_path.iterdir())


def test_a_server_that_dies_half_way_leaves_no_profile(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    with serving(FakeServer(breaks_after=3)) as url:
        result = invoke("calibrate", "--backend", url, "-o", file, "--no-progress")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "stopped answering while it was measured" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_server_that_takes_no_token_ids_is_refused_in_a_line(invoke: Invoke) -> None:
    refusing = FakeServer(completions=lambda _: web.Response(status=400, text="prompt must be a string"))
    with serving(refusing) as url:
        result = invoke("calibrate", "--backend", url, "--no-progress")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "refuses a completion of token ids: 400 prompt must be a string" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_server_without_room_is_refused_before_anything_is_sent(invoke: Invoke) -> None:
    fake = FakeServer(max_model_len=64)
    with serving(fake) as url:
        result = invoke("calibrate", "--backend", url)
    assert result.exit_code == 2
    assert "Start it with a larger --max-model-len" in result.stderr
    assert fake.bodies == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "neither FILE nor --backend"),
        (("t.jsonl", "--backend", "http://127.0.0.1:1"), "t.jsonl and --backend"),
        (("--backend", "gpu1"), "backend 'gpu1'; expected a server's URL"),
        (("--backend", "http://127.0.0.1:1"), "no server at http://127.0.0.1:1 (Connection refused)"),
        (("--backend", "http://127.0.0.1:1", "-o", "."), ". is no file"),
        (("--backend", "http://127.0.0.1:1", "--repeats", "0"), "--repeats"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    args: tuple[str, ...], words: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("calibrate", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
