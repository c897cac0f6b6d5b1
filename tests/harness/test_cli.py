from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import COMMANDS, cli
from harness.errors import EngineFailed, ReplayDiffers

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (sys.executable, "-c", "from harness.cli import main; main()")
SMALL = ("run", "--duration", "5m", "--warmup", "1m", "--concurrency", "2")

# Calls that the policy's life depends on, told by files in the current directory.
POLICY = '''
import os, signal
from pathlib import Path
from schedulers.vllm import Vllm

class Mine(Vllm):
    """Plain vLLM that hangs, dies or breaks when a file says so."""
    name = "mine"
    def handle(self, event, now):
        if now > 30:
            if Path("hang").exists():
                print("hanging", flush=True)
                signal.pause()
            if Path("die").exists():
                os._exit(9)
            if Path("break").exists():
                raise RuntimeError("broken")
        return super().handle(event, now)
'''


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    (folder / "my_module.py").write_text(POLICY)
    env = {k: v for k, v in os.environ.items() if not k.startswith("THUNDERBENCH")} | {
        "PYTHONPATH": str(ROOT)
    }
    pipe = subprocess.PIPE
    return subprocess.Popen((*PYTHON, *args), cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


def call(folder: Path, *args: str) -> tuple[int, str, str]:
    process = start(folder, *args)
    out, err = process.communicate()
    return process.returncode, out, err


def test_help_imports_nothing_heavy() -> None:
    heavy = ["numpy", "pyarrow", "pydantic", "rich", "scipy", "harness.spec", "workloads", "schedulers"]
    script = (
        "import sys\nfrom harness.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert not end.code\n"
        f"print('loaded', [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        (sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_help_lists_every_command_in_its_own_words() -> None:
    text = invoke("--help").stdout
    for name, (_, line) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", text, re.MULTILINE)


@pytest.mark.parametrize(
    "path", [(), *((name,) for name in COMMANDS), ("workloads", "show"), ("schedulers", "show")]
)
def test_every_command_has_examples(path: tuple[str, ...]) -> None:
    result = invoke(*path, "--help")
    assert result.exit_code == 0
    assert "Examples:\n" in result.stdout
    assert f"thunderbench {' '.join(path)}".strip() in result.stdout


def test_examples_of_run_are_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^ +thunderbench (run .+)$", invoke("run", "--help").stdout, re.MULTILINE)
    assert len(examples) >= 5
    for example in examples:
        if not re.search(r"my_module|--resume|-c |--profile|model_path", example):  # these need files
            assert invoke(*example.split(), "--dry-run").exit_code == 0, example
    assert list(tmp_path.iterdir()) == []


def test_version() -> None:
    assert re.fullmatch(r"thunderbench \S+\n", invoke("--version").stdout)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["rum"], "no command 'rum'; expected one of run, show, .+ Did you mean run?"),
        (["run", "--concurency", "4"], "No such option '--concurency'.+--concurrency.+"),
        (
            ["run", "--workload", "swe-light"],
            "no workload is called 'swe-light'; expected .+ Did you mean swe-lite.*?",
        ),
        (["run", "--workload", "trace:absent.jsonl"], ".*absent.jsonl.+"),
        (["run", "--scheduler", "thundr"], "scheduler 'thundr'; expected .+ Did you mean 'thunder'?"),
        (["run", "--model", "GLM-4.7"], "model 'GLM-4.7'; expected .+ Did you mean GLM-4.6-FP8.*?"),
        (["run", "--hardware", "4xH100"], r"GLM-4.6-FP8 does not fit: .+ \d+.\d GB too little; .+"),
        (["run", "--concurrency", "-4"], r"concurrency\[0\] = '-4'; expected at least 1"),
        (["run", "--concurrency", "1e99"], r"concurrency\[0\] = '1e99'; expected a valid integer"),
        (["run", "--duration", "-1h"], "duration_s = '-1h'; expected a duration such as .+"),
        (["run", "--kv-tokens", "0"], "kv_tokens = '0'; expected at least 1"),
        (["run", "--repeats", "0"], "repeats = '0'; expected at least 1"),
        (["run", "--request-rate", "0"], r"request_rate\[0\] = '0'; expected greater than 0"),
        (
            ["run", "--backend", "gpu"],
            "backend = 'gpu'; expected 'virtual', 'vllm-core', 'vllm' or 'servers'",
        ),
        (
            ["run", "--backend", "gpu1:8000"],
            "settings .+; expected backend gpu1:8000 with http:// in front.+",
        ),
        (
            ["run", "--backend", "http://a", "--backend", "vllm"],
            "settings that do not fit together; expected one backend, not vllm and servers",
        ),
        (
            ["run", "--backend", "http://a:b"],
            r"live.urls\[0\] = 'http://a:b'; expected an address such as .+",
        ),
        (["run", "--backend", "vllm"], "backend vllm without live.model_path; expected the folder .+"),
        (["run", "--backend", "http://a", "--jobs", "2"], "--jobs 2 with the backend servers; .+"),
        (
            ["run", "--api", "chat"],
            ".+; expected settings of live for the backends vllm and servers only.+",
        ),
        (["run", "--profile", "absent.toml"], "profile absent.toml: No such file or directory; .+"),
        (
            ["run", "--set", "engine.block=1"],
            "unknown setting engine.block; expected .+ Did you mean block_size?",
        ),
        (["run", "--set", "workload.step=1"], "no parameter is called 'step'; expected .+"),
        (
            ["run", "--set", "scheduler.thunder.delta_t_s=-1"],
            "thunder.delta_t_s = -1.0; expected seconds .+",
        ),
        (["run", "--goodput", "ttfb_s:2"], ".*ttfb_s.*; expected .*'ttft_s'.+"),
        (["run", "--config", "absent.toml"], "config absent.toml: No such file or directory; .+"),
        (["run", "-o", "/dev/null/here"], ".*/dev/null/here: Not a directory; .+"),
        (["run", "--resume", "absent"], "--resume absent: no spec.toml in it; .+"),
        (["run", "--jobs", "0"], "Invalid value for '--jobs'.+"),
        (["show", "absent"], "no run in absent; .+"),
        (["replay", "absent"], "no run in absent; .+"),
        (["workloads", "show", "swe"], "no workload is called 'swe'; .+"),
        (["schedulers", "show", "thundr"], "scheduler 'thundr'; .+"),
        (["models", "--hardware", "8xQ100"], "hardware 'Q100'; .+"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    args: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(f"thunderbench: error: {line}\n".replace("?\n", r"\?\n"), result.stderr), (
        result.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_a_malformed_trace_is_named_by_file_line_and_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"program_id": "p", "steps": [{"prompt_tokens": "x"}]}\n')
    result = invoke("run", "--workload", "trace:bad.jsonl")
    assert result.exit_code == 2
    assert re.fullmatch(
        r"thunderbench: error: bad\.jsonl, line 1, field \S*prompt_tokens: .+\n", result.stderr
    )
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (EngineFailed("the engine\nis gone"), 4, "the engine is gone"),
        (ReplayDiffers(7, 1.5, "Tick()", "[]", "[Hold()]"), 6, "event 7 at 1.5 s"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_end_with_their_code(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("harness.commands.models.profiles.hardware", fail)
    result = invoke("models")
    assert result.exit_code == code
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_our_bug_is_a_traceback_and_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.commands.models.profiles.hardware", lambda _: 1 / 0)
    result = invoke("models")
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_ctrl_c_keeps_what_finished_and_resume_does_the_rest(tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    schedulers = ("--scheduler", "vllm", "--scheduler", "my_module:Mine")
    process = start(tmp_path, *SMALL, *schedulers, "-o", "study", "--jobs", "1")
    assert process.stderr is not None
    assert "hanging\n" in iter(process.stderr.readline, "")  # what policies print goes there
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "1 of 3 runs are kept; go on with: thunderbench run --resume study" in err
    assert "interrupted by SIGINT" in err
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == ["spec.toml", "vllm-c2-s0"]
    done = (tmp_path / "study/vllm-c2-s0/DONE").stat().st_mtime_ns

    (tmp_path / "hang").unlink()
    code, out, err = call(tmp_path, "run", "--resume", "study")
    assert code == 0, err
    assert "Results: study" in out
    assert (tmp_path / "study/vllm-c2-s0/DONE").stat().st_mtime_ns == done
    assert (tmp_path / "study/my_module_Mine-c2-s0/DONE").exists()


def test_ctrl_c_before_any_run_finished_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    process = start(tmp_path, *SMALL, "--scheduler", "my_module:Mine", "-o", "new/study")
    assert process.stderr is not None
    assert "hanging\n" in iter(process.stderr.readline, "")  # what policies print goes there
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted by SIGTERM" in err
    assert "--resume" not in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("how", "words", "blame"),
    [
        ("die", "its process died without a word (exit code 9)", 4),
        ("break", "scheduler 'mine' raised RuntimeError: broken (my_module.py, line 17)", 2),
    ],
)
def test_a_run_that_dies_is_named_and_the_others_are_kept(
    tmp_path: Path, how: str, words: str, blame: int
) -> None:
    (tmp_path / how).touch()
    schedulers = ("--scheduler", "my_module:Mine", "--scheduler", "vllm")
    code, _, err = call(tmp_path, *SMALL, *schedulers, "-o", "study", "-q", "-v")
    assert code == blame
    assert f"run my_module:Mine-c2-s0 failed: {words}".replace(":Mine", "_Mine", 1) in err
    assert ("Traceback" in err) == (how == "break")
    kept = ["spec.toml", "unlimited-c2-s0", "vllm-c2-s0"]
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == kept
