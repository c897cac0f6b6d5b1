import json

import pytest

from workloads.errors import TraceError, WorkloadError
from workloads.model import Segment, SegmentKind, ToolRun
from workloads.traces import TraceWorkload


def step(prompt, new, output, **more):
    return {"prompt_tokens": prompt, "new_prompt_tokens": new, "output_tokens": output, **more}


def record(*steps, **more):
    return {"program_id": "p", "workload": "w", "steps": list(steps), **more}


@pytest.fixture
def trace(tmp_path):
    def write(*records, seed=0, **overrides):
        file = tmp_path / "runs.jsonl"
        file.write_text("".join(json.dumps(r) + "\n" for r in records))
        settings = {"shuffle": "false", **{name: str(value) for name, value in overrides.items()}}
        return TraceWorkload(file, seed=seed, overrides=settings)

    return write


def contexts(program):
    """Whole prompt of each call, as segments."""
    whole, seen = {}, []
    for call in program.calls:
        prompt = (whole[call.parent] if call.parent else []) + list(call.new)
        whole[call.call_id] = [*prompt, call.output]
        seen.append(prompt)
    return seen


def test_an_append_extends_the_previous_call(trace):
    steps = step(100, 100, 10, tool="bash", gap_s=0.5, tool_duration_s=9.0), step(130, 20, 5, tool="bash")
    program = trace(record(*steps, task_id="t")).program(0)
    first, second = program.calls
    assert program.task_id == "t"
    assert program.sandbox is None
    assert first.new == (Segment("p/0/0/0/task", SegmentKind.TASK, 100),)
    assert first.tools == (ToolRun("bash", 0.5, 20, needs_sandbox=False),)
    assert second.parent == first.call_id
    assert second.after == (first.call_id,)
    assert second.new == (Segment("p/0/0/1/new", SegmentKind.OBSERVATION, 20),)
    assert second.tools == ()


def test_a_dropped_output_starts_a_prompt_from_the_reused_part(trace):
    """The second prompt reuses the first prompt whole, but not its output."""
    program = trace(record(step(100, 100, 40), step(124, 24, 5))).program(0)
    first, second = program.calls
    assert second.parent is None
    assert second.after == (first.call_id,)
    assert second.new == (*first.new, Segment("p/0/0/1/new", SegmentKind.OBSERVATION, 24))


def test_a_rewritten_history_cuts_inside_a_segment(trace):
    program = trace(record(step(100, 100, 10), step(130, 20, 5), step(115, 8, 5))).program(0)
    task, output = program.calls[0].new[0], program.calls[0].output
    third = program.calls[2]
    assert third.parent is None
    assert third.new[0] == task
    assert third.new[1] == Segment(output.key, output.kind, 7)
    assert third.new[2].tokens == 8


def test_an_output_counted_as_new_is_an_append(trace):
    """Hash blocks of 64 tokens shared with the previous prompt: 84,288 of 84,352 tokens."""
    program = trace(record(step(84352, 84352, 154), step(84806, 518, 268))).program(0)
    assert program.calls[1].parent == program.calls[0].call_id
    assert [s.tokens for s in program.calls[1].new] == [300]


def test_prompts_have_the_recorded_lengths(trace):
    steps = [step(100, 100, 10), step(130, 20, 5), step(115, 8, 5), step(120, 0, 3), step(40, 40, 1)]
    program = trace(record(*steps)).program(0)
    sums = [sum(s.tokens for s in prompt) for prompt in contexts(program)]
    assert sums == [100, 130, 115, 120, 40]


def test_shared_prefix_is_shared_within_one_workload(trace):
    long, short = record(step(100, 100, 1)), record(step(20, 20, 1))
    workload = trace(*({**r, "shared_prefix_tokens": 30} for r in (long, short)))
    one, other = (workload.program(i).calls[0].new for i in range(2))
    assert one[0] == Segment("trace/w/shared", SegmentKind.SYSTEM_PROMPT, 30)
    assert other == (Segment("trace/w/shared", SegmentKind.SYSTEM_PROMPT, 20),)


def test_preparation_makes_a_sandbox(trace):
    acting = step(10, 10, 1, tool="bash", gap_s=1.0), step(20, 9, 1, tool="user_turn", tool_duration_s=2.0)
    program = trace(record(*acting, env_prepare_s=12.5, image_size_mb=3000, task_id="t")).program(0)
    assert (program.sandbox.image, program.sandbox.image_bytes) == ("t", 3_000_000_000)
    assert (program.sandbox.prepare_s, program.sandbox.prepare_s_per_peer) == (12.5, 0.0)
    assert [tool.needs_sandbox for call in program.calls for tool in call.tools] == [True, False]


def test_missing_acting_time_is_assumed_and_said(trace):
    silent = record(step(10, 10, 1, tool_duration_s=None), step(20, 9, 1))
    assert trace(silent).program(0).calls[0].tools[0].duration_s == 0.0
    workload = trace(silent, missing_acting_s=0.475)
    assert workload.program(0).calls[0].tools[0].duration_s == 0.475
    assert any("1 steps have no recorded acting time" in note for note in workload.notes)


def test_rounds_repeat_programs_with_ids_and_contents_of_their_own(trace):
    workload = trace(record(step(10, 10, 1)), record(step(20, 20, 1)))
    assert workload.size == 2
    first, again = workload.program(0), workload.program(2)
    assert first.program_id != again.program_id
    assert first.calls[0].new[0].tokens == again.calls[0].new[0].tokens == 10
    assert first.calls[0].new[0].key != again.calls[0].new[0].key


def test_the_order_is_drawn_from_the_seed(trace):
    records = [record(step(10 + i, 10 + i, 1)) for i in range(20)]

    def order(seed, round_=0):
        workload = trace(*records, seed=seed, shuffle="true")
        indexes = range(20 * round_, 20 * round_ + 20)
        return [workload.program(i).calls[0].new[0].tokens for i in indexes]

    assert order(1) == order(1)
    assert len({tuple(order(1)), tuple(order(2)), tuple(order(1, 1)), tuple(range(10, 30))}) == 4
    assert sorted(order(1)) == sorted(order(1, 1)) == list(range(10, 30))


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path):
    with pytest.raises(WorkloadError, match=r"gone.jsonl cannot be read"):
        TraceWorkload(tmp_path / "gone.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(WorkloadError, match="holds no program"):
        TraceWorkload(tmp_path / "empty.jsonl")
    with pytest.raises(WorkloadError, match="cannot be read"):
        TraceWorkload(tmp_path)


def test_a_malformed_line_is_found_when_the_file_is_opened(trace):
    with pytest.raises(TraceError) as caught:
        trace(record(step(10, 10, 1)), record(step(10, 10, 1), step(20, -1, 1)))
    assert (caught.value.line, caught.value.field) == (2, "steps[1].new_prompt_tokens")
