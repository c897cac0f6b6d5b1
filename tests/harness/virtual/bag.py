"""What driver tests share: a recorder of lists, small programs, a fast engine of round numbers."""

from random import Random

from harness.virtual.driver import VirtualRun
from harness.virtual.engine import EngineOptions
from harness.virtual.fast import FastEngine
from harness.virtual.sandbox import SandboxPool
from harness.virtual.steptime import StepTime
from schedulers.contract import Dispatch
from workloads.arrivals import ClosedLoop
from workloads.model import Call, Program, SandboxNeed, Segment, SegmentKind, ToolRun

ONE_SECOND_STEPS = StepTime(0.0, 0.0, 0.0, 0, 0, 0.0, 0.0, 1.0)


class Bag:
    """A recorder that keeps everything."""

    def __init__(self):
        self.programs, self.calls, self.tools, self.samples, self.sandboxes = [], [], [], [], []
        self.decisions = []

    def decide(self, now, event, actions):
        self.decisions.append((now, event, actions))


class Through:
    """Dispatches every call at once to the first replica; keeps what it was told."""

    name = "through"
    needs = frozenset()
    observes = frozenset()
    manages_sandboxes = False

    def __init__(self, answer=None):
        self.answer = answer or {}
        self.rng = Random(0)

    def handle(self, event, now):
        if type(event) in self.answer:
            return self.answer[type(event)](event, now)
        if type(event).__name__ == "CallArrived":
            return [Dispatch(event.call_id, "r0")]
        return []

    def check_invariants(self):
        pass


def segment(key, tokens):
    return Segment(key, SegmentKind.TASK, tokens)


def chain(name, steps, *, prompt=8, output=2, observation=4, tool_s=3.0, sandbox=None):
    """A ReAct program of `steps` calls, each followed by one tool."""
    calls = []
    for k in range(steps):
        new = segment(f"{name}/task", prompt) if not k else segment(f"{name}/obs{k}", observation)
        parent = f"{name}/{k - 1}" if k else None
        calls.append(
            Call(
                f"{name}/{k}",
                parent,
                (new,),
                segment(f"{name}/out{k}", output),
                (parent,) if parent else (),
                (ToolRun("bash", tool_s, observation),),
            )
        )
    return Program(name, tuple(calls), sandbox)


def need(image="img", prepare_s=10.0):
    return SandboxNeed(image, 1000, 10, prepare_s, 0.0)


def play(programs, *, arrivals=None, policy=None, options=None, replicas=1, step=ONE_SECOND_STEPS, **more):
    """Run a list of programs; returns the recorder."""
    bag = Bag()
    options = options or EngineOptions(kv_tokens=4096, block_size=4)
    arguments = {
        "programs": lambda i: programs[i],
        "size": len(programs),
        "arrivals": arrivals or ClosedLoop(len(programs)),
        "policy": policy or Through(),
        "engines": {f"r{i}": FastEngine(options, step) for i in range(replicas)},
        "kv_tokens": options.kv_tokens,
        "block_size": options.block_size,
        "sandboxes": SandboxPool(),
        "recorder": bag,
        "warmup_s": 0.0,
        "duration_s": None,
        "sample_every_s": 1000.0,
        **more,
    }
    VirtualRun(**arguments).run()
    return bag
