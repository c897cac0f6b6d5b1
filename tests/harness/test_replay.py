"""A replay reproduces every recorded decision, or names the first that it does not."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from harness.errors import ReplayDiffers, SetupError
from harness.replay import ReplayResult, replay
from schedulers import registry
from schedulers.contract import (
    CallArrived,
    CallDispatched,
    CallFinished,
    Dispatch,
    Hold,
    ProgramArrived,
    ProgramFinished,
    ReplicaUp,
    Tick,
)
from tests.harness.results import PROVENANCE, write_run

EVENTS = [
    (0.0, ReplicaUp("r0", 1600, 16)),
    (0.1 + 0.2, ProgramArrived("p", needs_sandbox=False)),
    (0.5, CallArrived("p", "p/0", 100)),
    (0.5, CallDispatched("p", "p/0", "r0")),
    (3.0, CallFinished("p", "p/0", 100, 10, 0)),
    (4.0, ProgramFinished("p")),
]


class Dice:
    """Answers that depend on the configuration, the seed, the exact time and all that came before."""

    name: ClassVar[str] = "dice"

    @dataclass(frozen=True, slots=True)
    class Config:
        sides: int = 6
        scale: float = 1.0
        loud: bool = False

    def __init__(self, config, rng):
        self.config, self.rng = config, rng
        self.checked = 0
        made.append(self)

    def handle(self, event, now):
        throw = self.rng.randrange(self.config.sides)
        return [Hold(f"{type(event).__name__} {throw} {self.config.scale * now!r} {self.config.loud}")]

    def check_invariants(self):
        self.checked += 1


made: list[Dice] = []
PATH = f"{__name__}:Dice"


def record(folder, name, config=None, seed=7, change=None):
    """A run of `EVENTS` under a policy; `change(decisions)` tampers with the log."""
    policy = registry.build(name, {k: str(v).lower() for k, v in (config or {}).items()}, seed)
    decisions = [(now, event, policy.handle(event, now)) for now, event in EVENTS]
    if change:
        change(decisions)
    recorded = {"name": name, "config": registry.config_of(policy), "seed": seed}
    return write_run(folder, decisions=decisions, provenance=PROVENANCE | {"policy": recorded})


@pytest.mark.parametrize("name", ["vllm", "thunder"])
def test_what_a_policy_did_is_reproduced(tmp_path, name):
    found = replay(record(tmp_path / "run", name))
    assert (found.scheduler, found.events, found.until_s) == (name, len(EVENTS), 4.0)
    assert found.actions > 0


def test_configuration_and_seed_are_part_of_it(tmp_path):
    config = {"sides": 1000, "scale": 0.1, "loud": True}
    folder = record(tmp_path / "run", PATH, config, seed=11)
    assert replay(folder) == ReplayResult("dice", len(EVENTS), len(EVENTS), 4.0)
    assert made[-1].config == Dice.Config(sides=1000, scale=0.1, loud=True)


def test_invariants_are_checked_on_the_way_and_at_the_end(tmp_path):
    replay(record(tmp_path / "run", PATH), check_every=2)
    assert made[-1].checked == len(EVENTS) // 2 + 1


def test_the_first_difference_is_named(tmp_path):
    def change(decisions):
        decisions[2] = (*decisions[2][:2], [Dispatch("p/0", "elsewhere")])
        decisions[4] = (*decisions[4][:2], [Hold("later")])

    with pytest.raises(ReplayDiffers) as caught:
        replay(record(tmp_path / "run", "vllm", change=change))
    difference = caught.value
    assert difference.exit_code == 6
    assert difference.now == 0.5
    assert difference.event == repr(EVENTS[2][1])
    assert difference.recorded == "[Dispatch(call_id='p/0', replica='elsewhere', priority=0)]"
    assert difference.replayed == "[Dispatch(call_id='p/0', replica='r0', priority=0)]"


def test_a_time_that_is_off_by_one_bit_differs(tmp_path):
    def change(decisions):
        decisions[1] = (0.3, *decisions[1][1:])  # it was 0.1 + 0.2

    with pytest.raises(ReplayDiffers, match=r"at 0.3 s, ProgramArrived"):
        replay(record(tmp_path / "run", PATH, change=change))


def test_an_event_that_the_policy_refuses_differs(tmp_path):
    def change(decisions):
        decisions.insert(2, (0.4, CallFinished("stranger", "s/0", 1, 1, 0), []))

    with pytest.raises(ReplayDiffers, match=r"recorded \[\], replayed a refusal"):
        replay(record(tmp_path / "run", "thunder", change=change))


def test_actions_left_out_or_added_differ(tmp_path):
    def change(decisions):
        decisions.append((5.0, Tick(), []))

    with pytest.raises(ReplayDiffers, match="recorded \\[\\], replayed \\[Hold"):
        replay(record(tmp_path / "run", PATH, change=change))


def test_a_policy_that_cannot_be_built_is_the_users_setup(tmp_path):
    provenance = PROVENANCE | {"policy": {"name": "thundr", "config": {}, "seed": 1}}
    with pytest.raises(SetupError, match=r"scheduler 'thundr'.*Did you mean 'thunder'"):
        replay(write_run(tmp_path / "run", provenance=provenance))


def test_a_run_that_names_no_policy_is_refused(tmp_path):
    with pytest.raises(SetupError, match="its provenance names no policy"):
        replay(write_run(tmp_path / "run", provenance={"simulated": True}))


def test_an_empty_log_is_reproduced(tmp_path):
    assert replay(write_run(tmp_path / "run")) == ReplayResult("vllm", 0, 0, None)
