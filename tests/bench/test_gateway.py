"""The benchmark of the gateway measures what it says."""

from tests.bench.gateway import CASES, TARGETS, measure, table


def test_every_figure_is_there_and_the_table_says_which_target_was_met():
    found = measure(seconds=0.05, rounds=1, streams=20)
    units = {1: "ms", 32: "requests/s"}
    for kind, clients in CASES:
        for name in ("direct", "through"):
            assert found[f"{kind} x{clients} {name}, {units[clients]}"] > 0
    assert set(TARGETS) < set(found)
    assert found["plain x1 added p50, ms"] == found["plain x1 through, ms"] - found["plain x1 direct, ms"]
    lines = table(
        {**found, "stream x32 through, requests/s": 999.0, "open streams, MB": 300.0}, 20
    ).splitlines()
    assert len(lines) == 1 + len(CASES) + 1 + len(TARGETS)
    assert lines[6].startswith("MISSED  stream x32 through")
    assert lines[9].startswith("met   open streams")
