"""The cause of a server's end is found among what its processes repeat."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.live.server_log import LONGEST, TAIL_BYTES, last_lines, why
from tests.harness.live.fake_server import LAST_WORDS


def written(folder: Path, text: str) -> Path:
    path = folder / "server-0.log"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_first_error_counts_once_and_hearsay_not_at_all(tmp_path: Path) -> None:
    assert why(written(tmp_path, LAST_WORDS)) == "ValueError: No common block size for 16."


@pytest.mark.parametrize(
    "line",
    [
        "api_server.py: error: unrecognized arguments: --no-such",
        "/usr/bin/python: No module named vllm",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        "KeyboardInterrupt",
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
    ],
)
def test_lines_that_are_causes(tmp_path: Path, line: str) -> None:
    text = f"usage: something\n{line}\nsome more\n"
    assert why(written(tmp_path, text)) == line


def test_without_an_error_the_last_lines_are_told(tmp_path: Path) -> None:
    text = "".join(f"(Worker pid=9) INFO 11-21 06:30:1{i} [a.py:1] step {i}\n\n" for i in range(7))
    assert why(written(tmp_path, text)) == "step 2 | step 3 | step 4 | step 5 | step 6"


def test_an_empty_log_and_none(tmp_path: Path) -> None:
    assert why(written(tmp_path, "\n")) == "it wrote nothing"
    assert why(tmp_path / "absent.log") == "it wrote nothing"


def test_only_the_end_of_a_long_log_is_read_and_long_lines_are_cut(tmp_path: Path) -> None:
    text = "ValueError: long ago\n" + "x" * TAIL_BYTES + "\nlast\n"
    assert last_lines(written(tmp_path, text)) == ["x" * LONGEST, "last"]


def test_a_log_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"ok\n\xff\xfe\n")
    assert last_lines(path) == ["ok", "\ufffd\ufffd"]
