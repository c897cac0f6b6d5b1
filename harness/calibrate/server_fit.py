"""The constants of `StepTime`, fitted to what a real server was measured doing.

    T = max(compute, weights) + attention + kv_read + overhead, and `Outside` before a first token

*Fit.* Once it is said which steps are bound by compute, all of T is linear in constants that are not
negative. A step is when it has more tokens than some number, so every number that matters is tried: least
squares of relative errors without negative constants (scipy's nnls), and the best by the whole formula is
polished under a soft L1 loss, so that a point far off counts only linearly.

*Identified.* What the measurements say about a constant is told, never hidden: its 95 % interval is the
larger of two, of the curvature of the fit at the noise that is left and of fits that each leave a tenth of
the points out. A constant is identified when the interval is within 25 % of it. Others keep the value of
the fit, since sums of constants may be known where each is not (weights and overhead, when no step was
bound by compute), and the one it trades with is named.

*Held out.* A share of the sizes of each kind is never fitted; the smallest and the largest always are, for
nobody should read an extrapolation as an error of the formula. All errors told are of sizes held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from harness.calibrate.fit import FOLDS, VAGUE
from harness.calibrate.predict import Outside
from harness.calibrate.works import KINDS, Kind, Point, Work
from harness.columns import Floats
from harness.errors import SetupError
from harness.virtual.steptime import StepTime

NAMES = (
    "compute_s_per_token",
    "dense_weights_s",
    "expert_weights_s",
    "attention_s_per_pair",
    "kv_read_s_per_token",
    "overhead_s",
    "outside_s_per_call",
    "outside_s_per_token",
)
LEAST_POINTS = 4  # of cold prefills, and of decodes
METRICS: dict[Kind, str] = {
    "cold prefill": "TTFT",
    "cached prefill": "TTFT, prompt cached",
    "decode": "TPOT",
}
_NOISE = 0.01  # relative noise of a median at the least
_SOFT = 0.1
_NOTHING = 1e-6  # of the time of all points: a constant that takes less is 0
_TRADES = 0.8  # correlation of two constants from which on one is named as why the other is vague
_Z95 = 1.96


class Experts(NamedTuple):
    """Routed experts of a model, as `StepTime` has them; of a dense one there are none."""

    experts: int = 0
    per_token: int = 0

    def touched(self, tokens: int) -> float:
        """Share of them that a step of so many tokens reads."""
        return 1.0 - (1.0 - self.per_token / self.experts) ** tokens if self.experts else 0.0


DENSE = Experts()


class Fitted(NamedTuple):
    """A constant with its 95 % interval. `why` says what is not known; empty when it is identified."""

    name: str
    value: float
    low: float
    high: float
    why: str

    @property
    def identified(self) -> bool:
        """Whether the measurements say what it is."""
        return not self.why


class Errors(NamedTuple):
    """|predicted / measured - 1| of the sizes of one kind that were held out."""

    metric: str
    sizes: int
    median_share: float
    p90_share: float


class ServerFit(NamedTuple):
    """Constants, their intervals, and the errors on held-out sizes."""

    step_time: StepTime
    outside: Outside
    constants: list[Fitted]
    errors: list[Errors]
    fitted: list[Point]
    held_out: list[Point]
    budget: int

    def predicted(self, point: Point) -> float:
        """Seconds by the constants."""
        return point.work(self.budget).seconds(self.step_time, self.outside)


def fit_server(
    points: Sequence[Point], budget: int, *, experts: Experts = DENSE, holdout: float = 0.25, seed: int = 0
) -> ServerFit:
    """Fit all constants to some of the points. Raises `SetupError` for too few of them."""
    for kind in ("cold prefill", "decode"):
        count = sum(point.kind == kind for point in points)
        if count < LEAST_POINTS:
            raise SetupError(
                f"{count} sizes of {kind} measured",
                f"at least {LEAST_POINTS}",
                "Give the measurement more time or room (--time-limit, --max-prompt, --max-batch)",
            )
    held_out = hold_out(points, holdout, seed)
    training = [point for point in points if point not in held_out]
    problem = _Problem.of(training, budget, experts)
    x = problem.solve()
    step_time, outside = _read(x, experts)
    found = ServerFit(
        step_time, outside, _constants(problem, x, seed), [], training, sorted(held_out), budget
    )
    return found._replace(errors=[_errors(found, kind) for kind in KINDS if _of(found.held_out, kind)])


def hold_out(points: Sequence[Point], holdout: float, seed: int) -> set[Point]:
    """A share of the sizes of each kind, at least one where it has three, never its ends."""
    random = np.random.default_rng(seed)
    chosen: set[Point] = set()
    for kind in KINDS:
        inner = sorted(_of(points, kind))[1:-1]
        count = min(len(inner), max(1, round(holdout * (len(inner) + 2))))
        chosen |= {inner[place] for place in random.permutation(len(inner))[:count]}
    return chosen


def _of(points: Sequence[Point], kind: Kind) -> list[Point]:
    return [point for point in points if point.kind == kind]


def _errors(found: ServerFit, kind: Kind) -> Errors:
    mine = _of(found.held_out, kind)
    off = [abs(found.predicted(point) / point.seconds - 1) for point in mine]
    return Errors(METRICS[kind], len(mine), float(np.median(off)), float(np.quantile(off, 0.9)))


def _read(x: Floats, experts: Experts) -> tuple[StepTime, Outside]:
    known = dict(zip(NAMES, x.tolist(), strict=True))
    outside = Outside(known.pop("outside_s_per_call"), known.pop("outside_s_per_token"))
    return StepTime(experts=experts.experts, experts_per_token=experts.per_token, **known), outside


# ------------------------------------------------------------------ least squares


class _Problem(NamedTuple):
    """The points as arrays. `steps` are all steps of all points, `owner` the point of each."""

    steps: Floats
    owner: NDArray[np.int64]
    touched: Floats
    rest: Floats  # per point: pairs, read tokens, steps, calls, prompt tokens
    measured: Floats

    @classmethod
    def of(cls, points: Sequence[Point], budget: int, experts: Experts) -> _Problem:
        works: list[Work] = [point.work(budget) for point in points]
        steps = [new for work in works for new in work.steps]
        owner = [k for k, work in enumerate(works) for _ in work.steps]
        rest = [(w.pairs, w.read_tokens, len(w.steps), w.calls, w.prompt_tokens) for w in works]
        return cls(
            np.array(steps, dtype=np.float64),
            np.array(owner, dtype=np.int64),
            np.array([experts.touched(new) for new in steps]),
            np.array(rest, dtype=np.float64),
            np.array([point.seconds for point in points]),
        )

    def without(self, left_out: NDArray[np.bool_]) -> _Problem:
        """The same without some points."""
        kept = np.flatnonzero(~left_out)
        place = np.full(len(left_out), -1)
        place[kept] = np.arange(len(kept))
        mine = place[self.owner] >= 0
        owner = place[self.owner[mine]]
        return _Problem(self.steps[mine], owner, self.touched[mine], self.rest[kept], self.measured[kept])

    def columns(self, computing: NDArray[np.bool_]) -> Floats:
        """Seconds per unit of each constant over the measured ones, when these steps are compute-bound."""
        weighing = ~computing
        per_step = (self.steps * computing, weighing.astype(float), self.touched * weighing)
        bound = [np.bincount(self.owner, column, len(self.measured)) for column in per_step]
        return np.column_stack([*bound, self.rest]) / self.measured[:, None]

    def computing(self, x: Floats) -> NDArray[np.bool_]:
        """Which steps the constants bind by compute."""
        return np.asarray(x[0] * self.steps > x[1] + x[2] * self.touched)

    def residuals(self, x: Floats) -> Floats:
        """Relative errors by the whole formula."""
        return np.asarray(self.columns(self.computing(x)) @ x - 1)

    def solve(self) -> Floats:
        """The constants."""
        sizes = np.unique(self.steps)
        found = [self._linear(self.steps > size) for size in (0.0, *sizes)]
        best = min(found, key=lambda x: float(np.square(self.residuals(x)).sum()))
        return self._polished(best)

    def _linear(self, computing: NDArray[np.bool_]) -> Floats:
        columns = self.columns(computing)
        scale = np.linalg.norm(columns, axis=0)
        scale[scale == 0] = 1.0
        x, _ = nnls(columns / scale, np.ones(len(self.measured)))
        return np.asarray(x / scale)

    def _polished(self, x: Floats) -> Floats:
        columns = self.columns(self.computing(x))
        scale = np.linalg.norm(columns, axis=0)
        scale[scale == 0] = 1.0
        better = least_squares(
            lambda y: self.residuals(y / scale),
            x * scale,
            bounds=(0.0, np.inf),
            loss="soft_l1",
            f_scale=_SOFT,
            xtol=1e-12,
        )
        # What nothing depends on wandered off, and the solver keeps a hair's breadth from every bound.
        kept = columns.any(axis=0) & (better.x > _NOTHING)
        found = np.where(kept, better.x / scale, 0.0)
        both = (x, found)
        return min(both, key=lambda y: float(np.sqrt(1 + np.square(self.residuals(y) / _SOFT)).sum()))


# ------------------------------------------------------------------ what is identified


def _constants(problem: _Problem, x: Floats, seed: int) -> list[Fitted]:
    """Every constant with its interval; experts only where there are some."""
    columns = problem.columns(problem.computing(x))
    scale = np.linalg.norm(columns, axis=0)
    used = scale > 0
    covariance = np.zeros((len(x), len(x)))
    scaled = columns[:, used] / scale[used]
    noise = max(_NOISE, 1.4826 * float(np.median(np.abs(problem.residuals(x)))))
    inner = np.linalg.inv(scaled.T @ scaled + 1e-12 * np.eye(int(used.sum())))
    covariance[np.ix_(used, used)] = noise**2 * inner / np.outer(scale[used], scale[used])
    errors = np.maximum(np.sqrt(np.diag(covariance)), _jackknife(problem, seed))
    # Of no point can a constant take more than all of its time.
    most = np.where(used, (1 + 3 * noise) / np.where(used, columns.max(axis=0), 1.0), np.inf)
    return [
        _fitted(k, x, errors, most, covariance)
        for k in range(len(NAMES))
        if NAMES[k] != "expert_weights_s" or problem.touched.any()
    ]


def _jackknife(problem: _Problem, seed: int) -> Floats:
    """Standard errors from fits that each leave a tenth of the points out."""
    count = len(problem.measured)
    order = np.random.default_rng(seed + 1).permutation(count)
    folds = [np.isin(np.arange(count), part) for part in np.array_split(order, min(FOLDS, count))]
    fits = np.array([problem.without(fold).solve() for fold in folds])
    return np.asarray(np.sqrt((len(fits) - 1) * np.mean((fits - fits.mean(axis=0)) ** 2, axis=0)))


def _fitted(k: int, x: Floats, errors: Floats, most: Floats, covariance: Floats) -> Fitted:
    value, half = float(x[k]), _Z95 * float(errors[k])
    low, high = max(0.0, value - half), max(value, min(value + half, float(most[k])))
    if np.isinf(most[k]):
        return Fitted(NAMES[k], value, 0.0, float("inf"), "nothing measured depends on it")
    if half <= VAGUE * value:
        return Fitted(NAMES[k], value, low, high, "")
    partner = _partner(k, covariance)
    if partner is not None:
        return Fitted(NAMES[k], value, low, high, f"not told apart from {NAMES[partner]}")
    why = f"not told from 0, at most {high:.3g}" if low == 0 else f"known to {half / value:.0%} only"
    return Fitted(NAMES[k], value, low, high, why)


def _partner(k: int, covariance: Floats) -> int | None:
    """The constant with which it trades, if one does."""
    sigma = np.sqrt(np.diag(covariance))
    sigma[sigma == 0] = 1.0
    alike = np.abs(covariance[k] / (sigma * sigma[k]))
    alike[k] = 0.0
    return int(alike.argmax()) if alike.max() > _TRADES else None
