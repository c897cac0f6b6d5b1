"""What has to agree before runs are compared, and how a difference is told."""

import pytest

from harness.errors import SetupError
from reports.comparable import differences, load_of

SPEC = {
    "workload": "swe-lite",
    "schedulers": ["vllm"],
    "model": "GLM-4.6-FP8",
    "hardware": "8xH100",
    "backend": "virtual",
    "concurrency": [96],
    "duration_s": 3600.0,
    "seed": 0,
    "repeats": 1,
    "engine": {"block_size": 16},
    "overrides": {"workload": {"tasks": 300}, "scheduler": {}},
}
PROVENANCE = {"plan_hash": "a" * 64, "simulated": True, "options": {"block_size": 16, "flash": True}}


def run(name="a", provenance=None, **spec):
    return name, SPEC | spec, PROVENANCE | (provenance or {})


def test_runs_of_other_schedulers_loads_and_seeds_are_comparable():
    policy = {"policy": {"name": "thunder"}, "git_commit": "1234", "started_utc": "now"}
    runs = [
        run("a"),
        run(
            "b",
            policy,
            schedulers=["thunder"],
            overrides={"workload": {"tasks": 300}, "scheduler": {"x": 1}},
        ),
        run("c", {"plan_hash": "b" * 64}, seed=1, repeats=5),
        run("d", {"plan_hash": "c" * 64}, concurrency=[24]),
    ]
    assert differences(runs) == []


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"workload": "trace:x"}, "workload: swe-lite in a; trace:x in b"),
        ({"model": "Qwen3-8B"}, "model: GLM-4.6-FP8 in a; Qwen3-8B in b"),
        ({"hardware": "1xH200"}, "hardware: 8xH100 in a; 1xH200 in b"),
        ({"backend": "vllm-core"}, "backend: virtual in a; vllm-core in b"),
        ({"backend": "servers"}, "backend: virtual in a; servers in b"),
        ({"live": {"api": "chat", "port": 9}}, "live.api: none in a; chat in b"),
        ({"duration_s": 60.0}, "duration_s: 3600.0 in a; 60.0 in b"),
        ({"warmup_s": 60.0}, "warmup_s: none in a; 60.0 in b"),
        ({"engine": {"block_size": 32}}, "engine.block_size: 16 in a; 32 in b"),
        ({"overrides": {"workload": {"tasks": 5}}}, "overrides.workload.tasks: 300 in a; 5 in b"),
    ],
)
def test_each_difference_is_one_line(spec, line):
    assert differences([run("a"), run("b", **spec)]) == [line]


def test_how_it_was_made_counts_too():
    found = differences([run("a"), run("b", {"simulated": False, "options": {"flash": False}})])
    assert found == ["options.flash: True in a; False in b", "simulated: True in a; False in b"]


def test_another_plan_is_told_with_its_load_and_seed():
    found = differences([run("a"), run("b", {"plan_hash": "b" * 64}), run("c", {"plan_hash": "c"}, seed=1)])
    assert found == ["plan_hash at 96 programs at a time, seed 0: aaaaaaaaaaaa in a; bbbbbbbbbbbb in b"]


def test_parameters_of_another_workload_say_nothing_more():
    other = run("b", workload="trace:x", overrides={"workload": {"shuffle": True}, "scheduler": {}})
    assert differences([run(), other]) == ["workload: swe-lite in a; trace:x in b"]


def test_many_runs_are_counted():
    runs = [run(f"r{i}") for i in range(5)] + [run("other", model="Qwen3-8B")]
    assert differences(runs) == ["model: GLM-4.6-FP8 in r0, r1, r2 and 2 more; Qwen3-8B in other"]


def test_hostile_names_and_values_stay_on_one_short_line():
    (line,) = differences(
        [run("x" * 10_000), run("\x1b[31m\nb", model="\N{RIGHT-TO-LEFT OVERRIDE}" + "m" * 10_000)]
    )
    assert len(line) < 200
    assert line.isprintable()


def test_nothing_to_compare_is_no_difference():
    assert differences([]) == []
    assert differences([run("a")]) == []


@pytest.mark.parametrize(
    ("spec", "load"),
    [
        ({"concurrency": [96]}, ("concurrency", 96)),
        ({"request_rate": [0.5]}, ("request_rate", 0.5)),
        ({"arrival_times": [0.0, 1.0, 5.0]}, ("arrival_times", 3)),
    ],
)
def test_the_load_of_a_run(spec, load):
    assert load_of(spec) == load


def test_a_spec_without_a_load_is_refused():
    with pytest.raises(SetupError, match="the spec of results/a names no load"):
        load_of({"concurrency": []}, "results/a")


def test_a_gateways_folder_is_named_as_what_it_is():
    told = "results/a was recorded by `thunderbench serve`.* `show` and `replay` read this one"
    with pytest.raises(SetupError, match=told):
        load_of({"scheduler": "thunder", "backends": ["http://a"]}, "results/a")


def test_ports_of_servers_may_differ():
    live = {"api": "tokens", "port": 8000, "ready_timeout_s": 600.0}
    runs = [run("a", live=live), run("b", live=live | {"port": 9000, "ready_timeout_s": 60.0})]
    assert differences(runs) == []
