"""What is read of a request, what is added to it, and that everything else passes byte by byte."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.live.wire import Looked, content_of, look, prepare
from schedulers.prefix_index import PrefixTree, Segment

CHAT = "/v1/chat/completions"


def seen(looked):
    """All that `look` found, without the text it keeps."""
    return {name: getattr(looked, name) for name in Looked.__struct_fields__ if name != "fields"}


def body(**fields):
    return json.dumps(fields).encode()


def test_a_request_is_read_in_full():
    raw = body(
        model="m",
        program_id="p",
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=5,
        messages=[{"role": "user", "content": "hi"}],
        tools=[{}],
        thunderbench={"tools": ["bash", 3, "edit"], "needs_sandbox": True},
        vllm_xargs={},
        priority=1,
    )
    assert seen(look(CHAT, raw)) == {
        "path": CHAT,
        "program_id": "p",
        "model": "m",
        "stream": True,
        "wants_usage": True,
        "exact_prompt_tokens": None,
        "prompt_bytes": len('[{"role": "user", "content": "hi"}]') + len("[{}]"),
        "max_tokens": 5,
        "tools": ("bash", "edit"),
        "needs_sandbox": True,
        "has_xargs": True,
        "has_priority": True,
        "problem": None,
    }


def test_an_empty_request_says_nothing():
    assert seen(look(CHAT, b"{}")) == seen(Looked(CHAT))


def test_fields_of_the_wrong_type_are_absent_and_leave_the_rest_readable():
    raw = b"""{"model":[1],"program_id":true,"stream":"true","stream_options":[],"max_tokens":1.5,
        "thunderbench":7,"extra_body":[],"prompt":null,"tools":3}"""
    found = seen(look(CHAT, raw))
    assert found.pop("prompt_bytes") == len("null") + 1
    assert found | {"prompt_bytes": 0} == seen(Looked(CHAT))
    assert look(CHAT, b'{"model":null,"program_id":"p"}').program_id == "p"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"program_id":17}', "17"),
        (b'{"extra_body":{"program_id":"e"}}', "e"),
        (b'{"program_id":"p","extra_body":{"program_id":"e"}}', "p"),
        (b'{"program_id":null,"extra_body":{"program_id":8}}', "8"),
        (b'{"program_id":1.5}', None),
        (b'{"program_id":"a","program_id":"b"}', "b"),
        (b'{"\\u0070rogram_id":"p"}', "p"),
    ],
)
def test_program_ids_are_read_where_clients_of_thunderagent_put_them(raw, expected):
    assert look(CHAT, raw).program_id == expected


def test_the_limit_of_the_output_has_three_names():
    assert look(CHAT, b'{"max_tokens":1,"max_completion_tokens":2}').max_tokens == 2
    assert look(CHAT, b'{"max_tokens":1,"max_completion_tokens":null}').max_tokens == 1
    assert look("/v1/responses", b'{"max_output_tokens":3}').max_tokens == 3
    huge = 10**400
    assert look(CHAT, b'{"max_tokens":%d}' % huge).max_tokens == huge


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("[1,2,3]", 3),
        ("[ 1 , 2\n]", 2),
        ("[[7,8,9,10]]", 4),
        (" [ [7] ] ", 1),
        ("[]", 0),
        ("[[ ]]", 0),
        ("[[1],[2]]", None),
        ("[[1],2]", None),
        ("[1,[2]]", None),
        ("[[[1]]]", None),
        ('["a"]', None),
        ('"1,2"', None),
        ("[1.5]", None),
        ("[-1]", None),
        ("[1e3]", None),
        ("[true,false]", None),
        ("[null]", None),
        ("[{}]", None),
        ("[1]", 1),
        ("null", None),
        ("{}", None),
    ],
)
def test_only_one_list_of_token_ids_is_counted(prompt, tokens):
    for name in ("prompt", "input"):
        raw = b'{"%b":%b}' % (name.encode(), prompt.encode())
        assert look("/v1/completions", raw).exact_prompt_tokens == tokens


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(0, 1) | st.text(), st.lists, max_leaves=8
    )
)
def test_counting_ids_agrees_with_reading_them(prompt):
    """The text is never built; what is counted is what building it would find."""
    one = (
        prompt[0]
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], list)
        else prompt
    )
    are_ids = isinstance(one, list) and all(type(i) is int and i >= 0 for i in one)
    assert look("/v1/completions", body(prompt=prompt)).exact_prompt_tokens == (
        len(one) if are_ids else None
    )


# ------------------------------------------------------------------ oddities


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", "truncated"),
        (b"[]", "got `array`"),
        (b"null", "got `null`"),
        (b'{"a":1', "truncated"),
        (b'{"a":1}x', "malformed"),
        (b'{"a":1,}', "malformed"),
        (b"[NaN]", "got `array`"),
        ('{"a":1}'.encode("utf-16"), "malformed"),
        (b'{"\xff":1}', "can't decode byte 0xff"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "maximum recursion depth"),
    ],
)
def test_a_body_that_is_no_object_has_a_problem_of_one_line_and_passes(raw, found):
    looked = look(CHAT, raw)
    line = r"the body cannot be read \(.*%s.*\); expected one JSON object in UTF-8. Send such a body"
    assert re.fullmatch(line % re.escape(found), looked.problem)
    assert seen(looked) == seen(Looked(CHAT, problem=looked.problem))
    assert prepare(looked, raw, priority=3, xargs={"a": "b"}, ask_usage=True) is raw
    assert content_of(looked, raw) == ""


@pytest.mark.parametrize(
    "raw",
    [
        b'\xef\xbb\xbf {"program_id":"p","stream":true}',
        b'{"program_id":"p","stream":true,"top_p":NaN,"x":[-Infinity,"]"]}',
        b'{"program_id":"p","stream":true,"messages":[{"content":"\\udcff"}]}',
        b'{"\\ud800":{"}":"\\"}"},"program_id":"p","stream":true}',
    ],
)
def test_what_only_python_takes_for_json_is_read_and_added_to(raw):
    looked = look(CHAT, raw)
    assert (looked.problem, looked.program_id, looked.stream) == (None, "p", True)
    assert prepare(looked, raw) is raw
    prepared = prepare(looked, raw, priority=7)
    assert prepared == raw.replace(b"{", b'{"priority":7,', 1)


def test_broken_utf8_in_a_string_passes_for_the_server_to_refuse():
    raw = b'{"model":"\xff","program_id":"p"}'
    looked = look(CHAT, raw)
    assert (looked.problem, looked.model, looked.program_id) == (None, None, "p")
    assert prepare(looked, raw, priority=1) == b'{"priority":1,"model":"\xff","program_id":"p"}'


def test_an_object_with_a_broken_name_gets_no_entries():
    raw = b'{"vllm_xargs":{"\xff":1}}'
    assert prepare(look(CHAT, raw), raw, xargs={"a": "b"}) is raw


# ------------------------------------------------------------------ additions


def test_without_additions_the_very_same_bytes_go_on():
    raw = b'{"stream":true,"stream_options":{"include_usage":true},"priority":null,"x":1}'
    looked = look(CHAT, raw)
    assert prepare(looked, raw) is raw
    assert prepare(looked, raw, priority=5, xargs={}, ask_usage=True) is raw


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b" { } ", b' {"priority":-2,"vllm_xargs":{"k":"v\\""} } '),
        (b'{"a":1.50}', b'{"priority":-2,"vllm_xargs":{"k":"v\\""},"a":1.50}'),
        (b'{"vllm_xargs": null }', b'{"priority":-2,"vllm_xargs": {"k":"v\\""} }'),
        (b'{"vllm_xargs":{}}', b'{"priority":-2,"vllm_xargs":{"k":"v\\""}}'),
        (b'{"vllm_xargs":{"a" : 1.0}}', b'{"priority":-2,"vllm_xargs":{"k":"v\\"","a" : 1.0}}'),
        (b'{"vllm_xargs":{"k" : 1 , "a":2}}', b'{"priority":-2,"vllm_xargs":{"k" : "v\\"" , "a":2}}'),
        (b'{"vllm_xargs":3,"priority":9}', b'{"vllm_xargs":3,"priority":9}'),
        (
            b'{"vllm_xargs":{"b":1},"vllm_xargs":{}}',
            b'{"priority":-2,"vllm_xargs":{"b":1},"vllm_xargs":{"k":"v\\""}}',
        ),
        (b'{"x":{"vllm_xargs":{}}}', b'{"priority":-2,"vllm_xargs":{"k":"v\\""},"x":{"vllm_xargs":{}}}'),
    ],
)
def test_additions_are_spliced_in_and_nothing_else_changes(raw, expected):
    assert prepare(look(CHAT, raw), raw, priority=-2, xargs={"k": 'v"'}) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
        (
            b'{"stream":true,"stream_options":null}',
            b'{"stream":true,"stream_options":{"include_usage":true}}',
        ),
        (
            b'{"stream_options":{"include_usage":false,"y":[]},"stream":true}',
            b'{"stream_options":{"include_usage":true,"y":[]},"stream":true}',
        ),
        (b'{"stream":true,"stream_options":1}', None),
        (b'{"stream":false}', None),
        (b"{}", None),
    ],
)
def test_usage_is_asked_for_in_streams_that_do_not_tell_it(raw, expected):
    for path in (CHAT, "/v1/completions?x=1"):
        looked = look(path, raw)
        assert looked.can_ask_usage == (expected is not None)
        assert prepare(looked, raw, ask_usage=True) == (expected or raw)
    for path in ("/v1/responses", "/v1/messages"):
        assert prepare(look(path, raw), raw, ask_usage=True) is raw


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"thunderbench":{"tools":[]}}', b"{}"),
        (b'{"thunderbench":1, "a" : 2}', b'{ "a" : 2}'),
        (b'{"a" : 2 ,"thunderbench":"}"}', b'{"a" : 2 }'),
        (b'{"a":1,"thunderbench":[],"b":2}', b'{"a":1,"b":2}'),
        (b'{"thunderbench":12,"b":2,"thunderbench":1}', b'{"b":2}'),
        (b'{"\\u0074hunderbench":0,"b":2}', b'{"b":2}'),
        (b'{"a":{"thunderbench":1}}', b'{"a":{"thunderbench":1}}'),
        (b'{"a":"x,y","thunderbench":1,"a":12}', b'{"a":"x,y","a":12}'),
        (b'{"a":12,"thunderbench":1,"a":1}', b'{"a":12,"a":1}'),
    ],
)
def test_our_own_field_is_taken_out(raw, expected):
    assert prepare(look(CHAT, raw), raw) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(
    st.sampled_from(["include_usage", "program_id", "k", "\u00e4"]) | st.text(), JSON, max_size=4
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "stream": st.booleans(),
        "stream_options": st.none() | OBJECTS | JSON,
        "vllm_xargs": st.none() | OBJECTS | JSON,
        "priority": st.integers(),
        "thunderbench": JSON,
        "messages": JSON,
        "x": JSON,
        '\u00fc"}': JSON,
    },
).flatmap(lambda fields: st.permutations(list(fields.items())).map(dict))


@given(
    BODIES,
    st.sampled_from([(None, (",", ":")), (None, (" , ", " : ")), (3, (",", ":"))]),
    st.booleans(),
    st.integers(-5, 5),
    st.dictionaries(st.sampled_from(["program_id", "k"]), st.text(), max_size=2),
    st.booleans(),
)
@example({"thunderbench": 1, "vllm_xargs": {"k": 1}}, (None, (",", ":")), True, 0, {"k": "v"}, False)  # noqa: FBT003
def test_a_prepared_body_is_the_body_and_the_additions(
    fields, layout, is_ascii, priority, xargs, ask_usage
):
    raw = json.dumps(fields, ensure_ascii=is_ascii, indent=layout[0], separators=layout[1]).encode()
    expected = {k: v for k, v in fields.items() if k != "thunderbench"}
    if priority and "priority" not in fields:
        expected["priority"] = priority
    if xargs and isinstance(fields.get("vllm_xargs", {}), dict | None):
        expected["vllm_xargs"] = (fields.get("vllm_xargs") or {}) | xargs
    if ask_usage and fields.get("stream") and isinstance(fields.get("stream_options", {}), dict | None):
        expected["stream_options"] = (fields.get("stream_options") or {}) | {"include_usage": True}
    looked = look(CHAT, raw)
    prepared = prepare(looked, raw, priority=priority, xargs=xargs, ask_usage=ask_usage)
    assert json.loads(prepared) == expected
    assert look(CHAT, prepared).problem is None
    if expected == fields and prepared != raw:
        assert fields["stream_options"]["include_usage"] == 1  # 1 equals true, and became it


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_garbage_never_raises(raw):
    looked = look(CHAT, raw)
    content_of(looked, raw)
    prepared = prepare(looked, raw, priority=1, xargs={"a": "b"})
    assert (prepared is raw) == (looked.problem is not None)


@given(st.text('{}[]":,\\ 0eunltr', max_size=30))
def test_almost_json_never_raises(text):
    raw = b'{"thunderbench":0,"x":%b}' % text.encode()
    looked = look(CHAT, raw)
    content_of(looked, raw)
    prepared = prepare(looked, raw, priority=1)
    if looked.problem is None:
        expected = json.loads(raw) | {"priority": 1}
        assert json.loads(prepared) == {k: v for k, v in expected.items() if k != "thunderbench"}


# ------------------------------------------------------------------ content


def lines(**fields):
    raw = body(**fields)
    return [
        Segment(line.split()[1], int(line.split()[0]))
        for line in content_of(look(CHAT, raw), raw).split("\n")
    ]


def shared(one, other):
    """Tokens of the common prefix, as the routers' own tree sees it."""
    tree = PrefixTree()
    tree.insert(one, "r")
    return tree.match(other).tokens


def tokens(segments):
    return sum(segment.tokens for segment in segments)


USER, ANSWER, MORE = (
    {"role": r, "content": f"{r} {c}" * 9} for r, c in (("user", 1), ("assistant", 2), ("user", 3))
)


def test_messages_are_lines_after_tools_and_system():
    found = lines(messages=[USER, ANSWER], system="be brief", tools=[{"name": "bash"}])
    alone = lines(messages=[USER, ANSWER])
    assert len(found) == 4
    assert found[2:] == alone
    assert found[:2] == lines(tools=[{"name": "bash"}], system="be brief")
    assert alone[0].tokens == -(-len(json.dumps(USER)) // 4)


def test_a_conversation_that_grows_shares_all_it_was():
    before, after = lines(messages=[USER]), lines(messages=[USER, ANSWER, MORE])
    assert shared(before, after) == tokens(before)
    assert shared(lines(messages=[ANSWER]), after) == 0


def test_parts_of_a_message_are_lines_of_their_own_and_belong_to_their_role():
    one, two = {"type": "text", "text": "a" * 40}, {"type": "text", "text": "b" * 40}
    before = lines(messages=[{"role": "user", "content": [one]}])
    after = lines(messages=[{"role": "user", "content": [one, two]}])
    assert (len(before), len(after)) == (1, 2)
    assert shared(before, after) == tokens(before)
    assert shared(before, lines(messages=[{"role": "tool", "content": [one]}])) == 0
    assert len(lines(messages=[{"role": "user", "content": []}])) == 1


def test_token_ids_are_cut_into_chunks_with_exact_counts():
    ids = list(range(600))
    before = lines(prompt=ids)
    assert [segment.tokens for segment in before] == [256, 256, 88]
    assert before == lines(prompt=[ids])
    assert shared(before, lines(prompt=[*ids, 1])) == 512
    assert shared(before, lines(prompt=[9, *ids])) == 0


def test_a_text_prompt_that_grows_shares_its_beginning():
    before = lines(prompt="x" * 3000)
    assert shared(before, lines(prompt="x" * 3000 + "y")) == 512


def test_odd_prompts_have_content_too():
    assert len(lines(prompt=["a", "b"])) == 2
    assert len(lines(prompt=[2**70, 1])) == 2
    assert len(lines(input={"a": 1})) == 1
    assert content_of(look(CHAT, b'{"prompt":null,"tools":[]}'), b"") == ""
