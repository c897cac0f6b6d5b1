"""What a threshold says, and what is refused as one."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SetupError
from reports.measures import MEASURES
from reports.thresholds import ALIASES, DEFAULTS, parse, parse_all


@pytest.mark.parametrize(
    ("text", "metric", "kind", "limit", "bound"),
    [
        ("throughput<-5%", "steps_per_min", "ratio", -0.05, 0.95),
        ("kv_hit_rate<-0.02", "hit_rate_share", "difference", -0.02, -0.02),
        ("ttft_p99>+10%", "ttft_p99_s", "ratio", 0.1, 1.1),
        ("  ttft_p99_s  >  1.5 ", "ttft_p99_s", "difference", 1.5, 1.5),
        ("throughput<-.5e1%", "steps_per_min", "ratio", -0.05, 0.95),
        ("leaked>0", "leaked", "difference", 0.0, 0.0),
        ("throughput<0%", "steps_per_min", "ratio", 0.0, 1.0),
        ("recomputed>5%", "recomputed_share", "ratio", 0.05, 1.05),
    ],
)
def test_a_threshold_is_read(text, metric, kind, limit, bound):
    found = parse(text)
    assert (found.measure.name, found.kind) == (metric, kind)
    assert (found.limit, found.bound) == (pytest.approx(limit), pytest.approx(bound))


def test_the_limit_itself_is_allowed():
    falls, rises = parse("throughput<-5%"), parse("ttft_p95>+10%")
    assert [falls.beyond(value) for value in (0.94, falls.bound, 0.96, 1.2)] == [True, False, False, False]
    assert [rises.beyond(value) for value in (1.11, rises.bound, 1.0, 0.5)] == [True, False, False, False]


def test_every_alias_names_a_metric():
    assert set(ALIASES.values()) <= set(MEASURES)
    assert not set(ALIASES) & set(MEASURES)


@given(
    st.sampled_from(sorted([*ALIASES, *MEASURES])),
    st.floats(0, 0.99, allow_subnormal=False),
    st.sampled_from(["", "%"]),
)
def test_its_text_reads_back_as_the_same(name, size, unit):
    better = MEASURES[ALIASES.get(name, name)].more_is_better
    found = parse(f"{name}{'<-' if better else '>+'}{size!r}{unit}")
    again = parse(found.text)
    assert again.text == found.text
    assert again.limit == pytest.approx(found.limit)


@pytest.mark.parametrize(
    ("text", "found", "fix"),
    [
        ("", "--fail-on ''", ""),
        ("throughput", "--fail-on 'throughput'", ""),
        ("througput", "--fail-on 'througput'", "Did you mean throughput?"),
        ("througput<-5%", "no metric 'througput'", "Did you mean throughput?"),
        ("ttft_p98>10%", "no metric 'ttft_p98'", "Did you mean ttft_p9"),
        ("throughput<=-5%", "--fail-on 'throughput<=-5%'", ""),
        ("throughput<-5 percent", "--fail-on 'throughput<-5 percent'", ""),
        ("throughput<-5%%", "--fail-on 'throughput<-5%%'", ""),
        ("throughput<five%", "--fail-on 'throughput<five%'", ""),
        ("throughput<-nan%", "--fail-on", ""),
        ("throughput<-inf%", "--fail-on", ""),
        ("throughput<-\u0665%", "--fail-on", ""),
        ("throughput>+5%", "never fails on a change for the worse: more of it is better", ""),
        ("ttft_p99<-5%", "never fails on a change for the worse: less of it is better", ""),
        ("throughput<+5%", "fails even when nothing changes", ""),
        ("ttft_p99>-5%", "fails even when nothing changes", ""),
        ("throughput<-100%", "can never fail", ""),
        ("throughput<-1e400%", "can never fail", ""),
        ("ttft_p99>1e400", "can never fail", ""),
        ("ttft_p99>1e400%", "can never fail", ""),
        ("kv_hit_rate<-1", "can never fail", ""),
        ("recomputed>1", "can never fail", ""),
        ("<script>alert(1)</script>", "--fail-on '<script>", ""),
        ("x" * 10_000, "--fail-on 'xxx", ""),
        ("a\x00b\n\u202e<-5%", r"--fail-on 'a\x00b\n\u202e<-5%'", ""),
    ],
)
def test_what_is_no_threshold_is_refused_in_one_line(text, found, fix):
    with pytest.raises(SetupError) as caught:
        parse(text)
    line = str(caught.value)
    assert found in line
    assert fix in line
    assert line.isprintable()
    assert len(line) < 400


@given(st.text(max_size=30))
def test_nothing_but_a_setup_error_comes_of_any_text(text):
    with suppress(SetupError):
        assert parse(text).text


def test_without_any_the_defaults_hold():
    assert [threshold.text for threshold in parse_all([])] == list(DEFAULTS)


def test_the_same_threshold_twice_is_one_and_two_limits_are_refused():
    assert len(parse_all(["throughput<-5%", "steps_per_min<-5%"])) == 1
    assert len(parse_all(["kv_hit_rate<-5%", "kv_hit_rate<-0.02"])) == 2
    with pytest.raises(SetupError, match="one limit of a kind per metric"):
        parse_all(["throughput<-5%", "throughput<-6%"])
