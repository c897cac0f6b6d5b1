from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import cli

Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    return lambda *args: CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture(scope="session")
def study(invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of two short runs; not to be changed."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    result = invoke("run", "--duration", "5m", "--warmup", "1m", "--concurrency", "2", "-o", folder)
    assert result.exit_code == 0, result.stderr
    return folder
