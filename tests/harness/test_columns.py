"""Numbers that may be absent stay absent."""

import numpy as np
import pyarrow as pa

from harness.columns import floats, inside, known, mean, ratio, texts, total, total_known, whole

TABLE = pa.table({"t_s": [0.0, 1.0, 2.0, None], "n": [1, 2, 3, None], "name": ["a", "b", "c", None]})


def test_a_window_leaves_out_its_start_and_takes_in_its_end():
    assert inside(TABLE, "t_s", (0.0, 2.0))["n"].to_pylist() == [2, 3]


def test_null_becomes_nan_and_whole_numbers_stay_exact():
    np.testing.assert_array_equal(floats(TABLE, "n"), [1.0, 2.0, 3.0, np.nan])
    assert floats(pa.table({"n": [2**53]}), "n")[0] == 2**53
    assert texts(TABLE, "name").tolist() == ["a", "b", "c", None]


def test_nothing_is_null_not_zero():
    assert mean(np.array([])) is None
    assert mean(np.array([np.nan])) is None
    assert mean(np.array([np.nan, 2.0, 4.0])) == 3.0
    assert known(np.array([np.nan, 2.0])).tolist() == [2.0]
    assert total_known(np.array([np.nan])) is None
    assert total_known(np.array([np.nan, 2.0])) == 2.0
    assert total(TABLE, "n") == 6.0
    assert total(TABLE.slice(0, 0), "n") == 0.0
    assert whole(None) is None
    assert whole(3.0) == 3


def test_a_ratio_of_nothing_is_null():
    assert ratio(1.0, 2.0) == 0.5
    assert ratio(0.0, 2.0) == 0.0
    assert ratio(None, 2.0) is None
    assert ratio(1.0, None) is None
    assert ratio(1.0, 0) is None
