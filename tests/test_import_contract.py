"""The arrows between the packages, read from the source: who may import whom, and what nobody may do.

workloads   standard library only, and ijson for traces; knows no servers and no policies
schedulers  standard library only; no clock, no randomness of its own, no I/O
harness     workloads, schedulers and libraries; never reports
reports     of the harness, its records and errors only
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("workloads", "schedulers", "harness", "reports")

# A policy takes `now` and `rng` as arguments; each of these would bring a clock, a thread or I/O.
FORBIDDEN_IN_SCHEDULERS = frozenset(
    {"asyncio", "concurrent", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "queue"}
    | {
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
    }
    | {"tempfile", "threading", "time", "urllib", "uuid"}
)
# It finds and imports policy classes by name, before a run begins; no policy uses it.
LOADER = "schedulers/registry.py"
FORBIDDEN_CALLS = frozenset({"open", "print", "input", "exec", "eval"})
OF_REPORTS = ("harness.records", "harness.errors", "reports")
HEAVY = frozenset(
    {"numpy", "pyarrow", "pydantic", "scipy", "pandas", "torch", "vllm"}
    | {"aiohttp", "uvloop", "msgspec", "prometheus_client", "opentelemetry"}
)
# What vLLM loads into the process of its engine, and what is started without site packages.
IN_ENGINES = (
    "harness/live/vllm_hooks.py",
    "harness/live/vllm_plugin/",
    "harness/live/hook_messages.py",
    "harness/errors.py",
)
OF_ENGINES = ("harness.errors", "harness.live.hook_messages", "harness.live.vllm_plugin", "vllm")
ALONE = ("harness/live/warden.py", "harness/live/replay/leash.py")


def parsed(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted((ROOT / package).rglob("*.py")):
        yield file.relative_to(ROOT), ast.parse(file.read_text(encoding="utf-8"), str(file))


def imported(file: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, `from a import b` as `a.b`, relative names resolved."""
    package = file.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def imports_of(package: str) -> list[tuple[str, str]]:
    return [
        (f"{file}:{line}", name) for file, tree in parsed(package) for line, name in imported(file, tree)
    ]


def top(name: str) -> str:
    return name.partition(".")[0]


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


@pytest.mark.parametrize("package", OURS)
def test_there_is_source_to_check(package):
    assert list(parsed(package))


@pytest.mark.parametrize(("package", "libraries"), [("schedulers", set()), ("workloads", {"ijson"})])
def test_it_imports_the_standard_library_and_itself_only(package, libraries):
    allowed = sys.stdlib_module_names | {package} | libraries
    assert [found for found in imports_of(package) if top(found[1]) not in allowed] == []


def test_schedulers_have_no_clock_no_threads_and_no_io():
    offenders = [found for found in imports_of("schedulers") if top(found[1]) in FORBIDDEN_IN_SCHEDULERS]
    assert [found for found in offenders if not found[0].startswith(f"{LOADER}:")] == []


def test_no_policy_uses_the_loader():
    users = [found[0] for found in imports_of("schedulers") if is_within(found[1], "schedulers.registry")]
    assert users == []


def test_schedulers_draw_from_the_generator_they_are_given():
    """`from random import Random` is all of the module they may touch."""
    of_random = [found for found in imports_of("schedulers") if top(found[1]) == "random"]
    assert [found for found in of_random if found[1] != "random.Random"] == []


def test_schedulers_call_nothing_that_reads_or_writes():
    calls = [
        f"{file}:{node.lineno} {node.func.id}"
        for file, tree in parsed("schedulers")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in FORBIDDEN_CALLS
    ]
    assert calls == []


def test_the_harness_never_imports_reports():
    assert [found for found in imports_of("harness") if is_within(found[1], "reports")] == []


def test_reports_import_records_and_errors_only_of_the_harness():
    strangers = [
        found
        for found in imports_of("reports")
        if top(found[1]) in OURS and not any(is_within(found[1], allowed) for allowed in OF_REPORTS)
    ]
    assert strangers == []


def test_what_runs_in_an_engine_imports_the_standard_library_vllm_and_itself_only():
    found = [(place, name) for place, name in imports_of("harness") if place.startswith(IN_ENGINES)]
    assert len({place.partition(":")[0] for place, _ in found}) > 4
    strangers = [
        (place, name)
        for place, name in found
        if top(name) not in sys.stdlib_module_names and not any(is_within(name, m) for m in OF_ENGINES)
    ]
    assert strangers == []


def test_what_is_started_without_site_packages_imports_the_standard_library_only():
    found = [(place, name) for place, name in imports_of("harness") if place.startswith(ALONE)]
    assert found
    assert [(place, name) for place, name in found if top(name) not in sys.stdlib_module_names] == []


def test_product_code_never_imports_tests():
    assert [found for package in OURS for found in imports_of(package) if top(found[1]) == "tests"] == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b, c", ["a.b", "c"]),
        ("from a.b import c, d", ["a.b.c", "a.b.d"]),
        ("from . import c", ["p.q.c"]),
        ("from .c import d", ["p.q.c.d"]),
        ("from ..c import d", ["p.c.d"]),
        ("def f():\n    import lazy", ["lazy"]),
    ],
)
def test_the_reader_of_imports_sees_every_form(source, names):
    assert [name for _, name in imported(Path("p/q/module.py"), ast.parse(source))] == names


def test_help_imports_nothing_heavy():
    """`thunderbench --help` answers at once: numpy, pyarrow and the like load with what needs them."""
    script = (
        "import json, sys\n"
        "from harness.cli import main\n"
        "sys.argv = ['thunderbench', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    help_text, _, modules = done.stdout.rstrip("\n").rpartition("\n")
    assert "Usage" in help_text
    assert HEAVY & {top(name) for name in json.loads(modules)} == set()
