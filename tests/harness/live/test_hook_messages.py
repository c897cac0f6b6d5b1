"""What plug-in and client say: read back as it was written, and nothing else is taken for a message."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SetupError
from harness.live.hook_messages import (
    Address,
    BadMessage,
    Evict,
    Hello,
    Message,
    Order,
    Pin,
    Retain,
    Segment,
    Stats,
    Unpin,
    decode,
    decode_line,
    encode,
    number_of,
    parse_address,
    parse_segments,
)

names = st.text(min_size=1, max_size=40)
seconds = st.floats(0, 1e9)
priorities = st.integers(-(1 << 31), 1 << 31)
messages = st.one_of(
    st.just(Hello()),
    st.builds(Stats, st.none() | names),
    st.builds(Pin, names, seconds, st.booleans()),
    st.builds(Unpin, names),
    st.builds(Evict, names, st.none() | st.integers(0, 1 << 53)),
    st.builds(Retain, names, names, priorities, seconds),
    st.builds(Order, names, priorities),
)


@given(messages, st.none() | st.integers(0, 1 << 40))
def test_a_message_is_read_back_as_it_was_written_in_one_line(message: Message, number: int | None) -> None:
    line = encode(message, number)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    fields = decode_line(line)
    assert (decode(fields), number_of(fields)) == (message, number)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_bad_one(line: bytes) -> None:
    with suppress(BadMessage):  # and nothing else
        assert decode(decode_line(line)) == Hello()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("program", "for_s", "yields", "tail_tokens", "kind", "priority", "id")


@given(
    st.sampled_from(["hello", "stats", "pin", "unpin", "evict", "retain", "order", "dance"]),
    st.dictionaries(st.sampled_from(KEYS), JSON),
)
def test_any_json_is_a_message_that_can_be_written_again_or_a_bad_one(
    do: str, rest: dict[str, Any]
) -> None:
    with suppress(BadMessage):  # and nothing else
        message = decode({"do": do, **rest})
        assert decode(decode_line(encode(message))) == message


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "`do` must be one of hello, stats, pin"),
        ({"do": "pin", "program": "p", "for_s": float("nan"), "yields": True}, "`for_s` must be a number"),
        ({"do": "pin", "program": "p", "for_s": -1, "yields": True}, "`for_s` must be a number from 0"),
        ({"do": "pin", "program": "p", "for_s": True, "yields": True}, "`for_s` must be a number"),
        ({"do": "pin", "program": "p", "for_s": 10**400, "yields": True}, "`for_s` must be a number"),
        ({"do": "pin", "program": "p", "for_s": 1}, "`yields` must be true or false"),
        ({"do": "unpin", "program": ""}, "`program` must be a text of 1 to 1024"),
        ({"do": "unpin", "program": "x" * 1025}, "`program` must be a text of 1 to 1024"),
        ({"do": "evict", "program": "p", "tail_tokens": -1}, "`tail_tokens` must be a whole number"),
        ({"do": "order", "program": "p", "priority": 1.0}, "`priority` must be a whole number"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(BadMessage, match=text):
        decode(fields)


@pytest.mark.parametrize("line", [b"[" * 60_000, b"9" * 60_000, b"\xff", b"[1]", b"{"])
def test_lines_that_are_no_object(line: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_line(line)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/a.sock", Address("/run/a.sock")),
        ("tcp:127.0.0.1:7700", Address("", "127.0.0.1", 7700)),
        ("tcp:localhost:1", Address("", "localhost", 1)),
        ("tcp:[::1]:7700", Address("", "::1", 7700)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "",
            "the engine hooks' address ''; expected a Unix socket, or TCP on loopback. Set THUNDER",
        ),
        ("unix:relative", "the engine hooks' address 'unix:relative'"),
        ("tcp:127.0.0.1", "the engine hooks' address"),
        ("tcp:127.0.0.1:65536", "the engine hooks' address"),
        ("tcp:127.0.0.1:\u0661", "the engine hooks' address"),
        ("http://127.0.0.1:80", "the engine hooks' address"),
        ("tcp:0.0.0.0:7700", "engine hooks at '0.0.0.0'; expected an address of this machine only"),
        ("tcp:192.0.2.1:7700", "an address of this machine only"),
        ("tcp:example.org:7700", "an address of this machine only"),
        ("tcp::7700", "an address of this machine only"),
        ("unix:/" + "x" * 107, "a socket path of 108 bytes; expected at most 107"),
    ],
)
def test_addresses_that_are_refused(text: str, error: str) -> None:
    with pytest.raises(SetupError) as raised:
        parse_address(text)
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("system_prompt:1200,task:300", (Segment("system_prompt", 1200), Segment("task", 300))),
        (" task:1 , a:b:2", (Segment("task", 1), Segment("a:b", 2))),
        ("", ()),
        ("task", ()),
        ("task:-1", ()),
        (":3", ()),
        ("task:1,,", ()),
        ("task:" + "9" * 5000, ()),
        (7, ()),
        (None, ()),
    ],
)
def test_segments_are_read_or_left_out_as_a_whole(text: object, segments: tuple[Segment, ...]) -> None:
    assert parse_segments(text) == segments


def test_the_plugin_brings_nothing_but_the_standard_library_into_the_engine() -> None:
    code = (
        "import json, sys; before = set(sys.modules); import harness.live.vllm_plugin.engine,"
        " harness.live.vllm_plugin.server; new = {m.partition('.')[0] for m in set(sys.modules) - before};"
        " print(json.dumps(sorted(new - sys.stdlib_module_names)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == ["harness"]
