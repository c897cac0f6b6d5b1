"""Streams of model servers as bytes, for the tests of whoever reads them."""

import json


def event(*, end=b"\n", name=None, **fields):
    """One event whose data are `fields`."""
    head = b"" if name is None else b"event: " + name.encode() + end
    return head + b"data: " + json.dumps(fields).encode() + end + end


DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}


def chat(content=None, usage=None, **delta):
    """One chunk of a chat; without `content` and `delta` it has no choices, as the last one with usage."""
    if content is not None:
        delta["content"] = content
    fields = {} if usage is None else {"usage": usage}
    return event(choices=[{"index": 0, "delta": delta}] if delta else [], **fields)


def tool_call(index, name=None, arguments=None, choice=0):
    """One chunk of a chat with a piece of a tool call."""
    call = {"index": index, "function": {"name": name, "arguments": arguments}}
    return event(choices=[{"index": choice, "delta": {"tool_calls": [call]}}])


CHAT = (
    chat("", role="assistant")
    + chat("Hel")
    + chat("l\u00f6")
    + tool_call(0, "bash", "")
    + tool_call(0, None, '{"a"')
    + tool_call(1, "edit", "")
    + event(choices=[{"index": 0, "delta": {}, "finish_reason": "tool_calls"}])
    + chat(usage=USAGE)
    + DONE
)
COMPLETION = (
    event(choices=[{"index": 0, "text": "a"}], usage={"prompt_tokens": 9, "completion_tokens": 1})
    + event(choices=[{"index": 0, "text": ""}], usage={"prompt_tokens": 9, "completion_tokens": 2})
    + event(choices=[{"index": 0, "text": "b"}], usage=None)
    + event(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": None})
    + DONE
)


def responses(kind, **fields):
    """One event of the Responses API."""
    return event(name=kind, type=kind, **fields)


RESPONSES = (
    responses("response.created", response={"status": "in_progress", "usage": None})
    + responses("response.output_item.added", item={"type": "reasoning"})
    + responses("response.reasoning_text.delta", delta="hm")
    + responses("response.output_item.added", item={"type": "message"})
    + responses("response.output_text.delta", delta="Hello")
    + responses("response.output_text.done", text="Hello")
    + responses("response.output_item.added", item={"type": "function_call", "name": "bash"})
    + responses("response.function_call_arguments.delta", delta="{}")
    + responses("response.output_item.done", item={"type": "function_call", "name": "bash"})
    + responses(
        "response.completed",
        response={
            "error": None,
            "usage": {"input_tokens": 9, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 8}},
        },
    )
)
ANTHROPIC = (
    event(
        name="message_start",
        type="message_start",
        message={"usage": {"input_tokens": 1, "cache_read_input_tokens": 8, "output_tokens": 0}},
    )
    + event(name="ping", type="ping")
    + event(type="content_block_start", content_block={"type": "text", "text": ""})
    + event(type="content_block_delta", delta={"type": "text_delta", "text": "Hello"})
    + event(type="content_block_stop", index=0)
    + event(type="content_block_start", content_block={"type": "tool_use", "name": "bash", "input": {}})
    + event(type="content_block_delta", delta={"type": "input_json_delta", "partial_json": "{}"})
    + event(type="content_block_delta", delta={"type": "signature_delta", "signature": "x"})
    + event(type="message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 3})
    + event(name="message_stop", type="message_stop")
)
ALL = {"chat": CHAT, "completion": COMPLETION, "responses": RESPONSES, "anthropic": ANTHROPIC}
