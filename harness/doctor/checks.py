"""The checks of `thunderbench doctor`: which facts each judge gets."""

from __future__ import annotations

import os
from pathlib import Path

from harness.doctor import findings, probes
from harness.doctor.findings import Finding
from harness.live.hook_messages import SCHEDULER_CLASS, TESTED_VLLM


def examine(results: Path, port: int) -> list[Finding]:
    """All findings about this machine, in the order in which they are told. Takes seconds where vLLM is."""
    bounds = findings.lower_bounds(probes.requirements())
    vllm = probes.vllm(SCHEDULER_CLASS)
    sockets = probes.container_sockets(os.environ)
    return [
        findings.python(probes.python_version(), probes.wanted_python()),
        findings.dependencies(bounds, probes.installed(bounds)),
        findings.cpu(*probes.cpu()),
        findings.memory(*probes.memory()),
        findings.shared_memory(probes.shared_memory()),
        findings.disk(*probes.free_disk(results)),
        findings.open_files(*probes.open_files()),
        findings.loopback(probes.listening(0)),
        findings.port(port, probes.listening(port)),
        findings.clock(probes.clock_source()),
        findings.gpus(*probes.gpus()),
        findings.vllm(vllm, TESTED_VLLM),
        findings.plugin(vllm, TESTED_VLLM),
        findings.containers(probes.container_daemon(sockets), sockets),
        findings.browser(*probes.browser()),
    ]
