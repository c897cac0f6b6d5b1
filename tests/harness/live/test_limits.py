"""The key opens the door, in either header; nothing else does."""

import pytest

from harness.live.limits import Door


@pytest.mark.parametrize(
    ("headers", "comes_in"),
    [
        ({"authorization": "Bearer secret"}, True),
        ({"authorization": "bearer  secret "}, True),
        ({"x-api-key": "secret"}, True),
        ({"authorization": "Basic abc", "x-api-key": "secret"}, True),
        ({"authorization": "Bearer wrong", "x-api-key": "secret"}, True),
        ({"authorization": "Bearer secret", "x-api-key": "wrong"}, True),
        ({"authorization": "Bearer wrong", "x-api-key": "wrong"}, False),
        ({"authorization": "Bearer ", "x-api-key": ""}, False),
        ({"authorization": "secret"}, False),
        ({"authorization": "Bearer secre"}, False),
        ({"authorization": "Bearer secret2"}, False),
        ({"authorization": "Bearer \udce4"}, False),
        ({"authorization": "Bearer "}, False),
        ({}, False),
    ],
)
def test_who_comes_in(headers, comes_in):
    assert Door("secret").lets_in(headers) is comes_in
    assert Door(None).lets_in(headers) is True
