"""The decision log keeps every event and action exactly."""

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import decisions
from harness.decisions import ACTIONS, EVENTS, DecisionWriter, decision_schema, layout, read_decisions
from harness.errors import SetupError
from harness.tables import file_metadata
from schedulers.contract import (
    CallArrived,
    CallFinished,
    Dispatch,
    Evict,
    Hold,
    Replicate,
    ReplicaUp,
    Tick,
    WakeAt,
)
from tests.harness import strategies

FILES_ON_DISK = settings(max_examples=20, deadline=None)

NOW = st.floats(allow_nan=False, allow_infinity=False)
LOGS = st.lists(st.tuples(NOW, strategies.events, st.lists(strategies.actions, max_size=3)), max_size=15)


def write(path, log):
    writer = DecisionWriter(path, file_metadata("decisions", {}))
    for now, event, actions in log:
        writer.decide(now, event, actions)
    writer.close()
    return path


@pytest.mark.parametrize("cls", EVENTS + ACTIONS, ids=lambda cls: cls.__name__)
@FILES_ON_DISK
@given(data=st.data())
def test_every_class_of_the_contract_comes_back_equal(tmp_path_factory, cls, data):
    made = data.draw(st.lists(strategies.made(cls), min_size=1, max_size=5))
    log = [(0.0, row, []) for row in made] if cls in EVENTS else [(0.0, Tick(), made)]
    path = write(tmp_path_factory.mktemp("log") / "decisions.parquet", log)
    assert [(d.now_s, d.event, d.actions) for d in read_decisions(path)] == log


@FILES_ON_DISK
@given(log=LOGS)
def test_a_log_comes_back_in_order_whatever_the_size_of_the_row_groups(tmp_path_factory, log):
    path = tmp_path_factory.mktemp("log") / "decisions.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decisions, "CHUNK_EVENTS", 4)
        write(path, log)
    assert pq.ParquetFile(path).num_row_groups == -(-len(log) // 4)
    found = list(read_decisions(path))
    assert [(d.now_s, d.event, d.actions) for d in found] == log
    assert [type(d.event) for d in found] == [type(event) for _, event, _ in log]


def test_rows_are_numbered_and_actions_name_their_cause(tmp_path):
    log = [
        (0.1 + 0.2, CallArrived("p", "c", 10), [Dispatch("c", "r0", 1), WakeAt(5.0)]),
        (1.0, CallFinished("p", "c", 10, 3, None), []),
        (5.0, Tick(), [Evict("p"), Evict("p", 0)]),
    ]
    frame = pd.read_parquet(write(tmp_path / "decisions.parquet", log))
    assert frame["seq"].tolist() == list(range(7))
    assert frame["kind"].tolist() == ["event", "action", "action", "event", "event", "action", "action"]
    assert frame["cause"].dropna().tolist() == [0, 0, 4, 4]
    assert frame["now_s"].tolist() == [0.1 + 0.2] * 3 + [1.0] + [5.0] * 3
    assert frame["name"].tolist()[:3] == ["CallArrived", "Dispatch", "WakeAt"]
    assert frame.loc[frame["name"] == "Dispatch", "priority"].tolist() == [1]
    assert frame["tail_tokens"].isna().sum() == 6
    assert [d.seq for d in read_decisions(tmp_path / "decisions.parquet")] == [0, 3, 4]


def test_the_list_of_actions_may_be_reused_by_the_driver(tmp_path):
    actions = [Hold("c")]
    writer = DecisionWriter(tmp_path / "decisions.parquet", file_metadata("decisions", {}))
    writer.decide(0.0, Tick(), actions)
    actions.clear()
    writer.close()
    assert [d.actions for d in read_decisions(tmp_path / "decisions.parquet")] == [[Hold("c")]]


def test_a_field_called_like_a_column_of_the_log_gets_its_class_in_front():
    assert [field.column for field in layout().fields[Replicate]] == [
        "program_id",
        "Replicate_kind",
        "replica",
    ]


def test_fields_of_one_name_and_two_types_get_two_columns():
    @dataclass
    class Left:
        size: int
        other: str

    @dataclass
    class Right:
        size: float | None
        other: str

    assert layout((Left, Right)).columns == {
        "Left_size": pa.int64(),
        "other": pa.string(),
        "Right_size": pa.float64(),
    }


def test_columns_tell_whose_they_are():
    description = decision_schema().field("block_size").metadata[b"description"]
    assert description == b"ReplicaUp.block_size"


def test_a_value_of_the_wrong_type_is_named(tmp_path):
    writer = DecisionWriter(tmp_path / "decisions.parquet", {})
    writer.decide(0.0, Tick(), [Dispatch("c", "r0", 1), Dispatch("c", "r0", 0.5)])
    with pytest.raises(SetupError, match=r"Dispatch.priority = 0.5; expected a value of type int64"):
        writer.close()


def test_an_action_outside_the_contract_is_named(tmp_path):
    @dataclass(frozen=True)
    class Shout:
        pass

    writer = DecisionWriter(tmp_path / "decisions.parquet", {})
    writer.decide(0.0, Tick(), [Shout()])
    with pytest.raises(SetupError, match="a policy returned Shout"):
        writer.close()


def _change(path, column, values):
    table = pq.read_table(path)
    index = table.column_names.index(column)
    pq.write_table(table.set_column(index, table.field(index), pa.array(values)), path)


def test_a_class_that_the_contract_does_not_know_is_refused(tmp_path):
    path = write(tmp_path / "decisions.parquet", [(0.0, ReplicaUp("r0", 10, 16), [])])
    _change(path, "name", ["ReplicaExploded"])
    with pytest.raises(SetupError, match="no event or action is called 'ReplicaExploded'"):
        list(read_decisions(path))


def test_an_action_without_an_event_is_refused(tmp_path):
    path = write(tmp_path / "decisions.parquet", [(0.0, Tick(), [])])
    _change(path, "kind", ["action"])
    with pytest.raises(SetupError, match="an action before any event"):
        list(read_decisions(path))
