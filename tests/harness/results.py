"""Rows with every field settable by name, and runs made of them."""

import pyarrow as pa

from harness.records import RunWriter
from harness.rows import CallRow, ProgramRow, SampleRow, SandboxRow, ToolRow
from harness.tables import row_schema

SPEC = 'concurrency = [2]\nseed = 7\nschedulers = ["vllm"]\n'
PROVENANCE = {
    "simulated": True,
    "plan_hash": "abc",
    "policy": {"name": "vllm", "config": {}, "seed": 7},
}


def program(program_id="p0", **changes):
    row = ProgramRow(program_id, 0, None, None, 0.0, 0.0, None, 3, 0, 0, 0, 0, 0, 0, 0.0, "unfinished")
    return row._replace(**changes)


def call(arrived=0.0, hold=0.0, queue=0.0, prefill=0.0, decode=0.0, sandbox=0.0, tool=0.0, **changes):
    """A step whose times follow from its parts."""
    dispatched = arrived + hold
    scheduled = dispatched + queue
    first = scheduled + prefill
    finished = first + decode
    row = CallRow(
        program_id="p0",
        call_id="p0/0",
        position=0,
        replica="r0",
        arrived_s=arrived,
        dispatched_s=dispatched,
        scheduled_s=scheduled,
        first_token_s=first,
        finished_s=finished,
        ended_s=finished + sandbox + tool,
        prompt_tokens=0,
        cached_tokens=0,
        known_tokens=0,
        recomputed_tokens=0,
        output_tokens=1,
        preemptions=0,
        hold_s=hold,
        queue_s=queue,
        prefill_s=prefill,
        decode_s=decode,
        sandbox_s=sandbox,
        tool_s=tool,
        retries=0,
        late_s=0.0,
    )
    return row._replace(**changes)


def tool(**changes):
    return ToolRow("p0", "p0/0", "bash", 0.0, 0.0, 1.0, 10)._replace(**changes)


def sample(time_s, replica="r0", **changes):
    zeros = dict.fromkeys(SampleRow._fields, 0)
    return SampleRow(**zeros | {"time_s": time_s, "replica": replica, "capacity_tokens": 100} | changes)


def sandbox(**changes):
    nothing = dict.fromkeys(SandboxRow._fields)
    plain = {"program_id": "p0", "image": "i", "requested_s": 0.0, "image_bytes": 100, "writable_bytes": 10}
    return SandboxRow(**nothing | plain | {"leaked": False} | changes)


def write_run(
    folder,
    *,
    programs=(),
    calls=(),
    tools=(),
    samples=(),
    sandboxes=(),
    decisions=(),
    spec=SPEC,
    provenance=PROVENANCE,
    summary=None,
):
    """A finished run with these rows and (now, event, actions)."""
    tables = {
        "programs": programs,
        "calls": calls,
        "tools": tools,
        "samples": samples,
        "sandboxes": sandboxes,
    }
    with RunWriter(folder, spec_toml=spec, provenance=provenance) as writer:
        for name, rows in tables.items():
            for row in rows:
                getattr(writer, name).append(row)
        for now, event, actions in decisions:
            writer.decide(now, event, actions)
        writer.finish(summary or {})
    return folder


def as_table(row_type, given_rows):
    """Rows as the table that a run would hold."""
    schema = row_schema(row_type)
    columns = list(zip(*given_rows, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
