"""A span per call says what the field's tools look for, and nothing of its content."""

import asyncio
import sys

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from harness.errors import SetupError
from harness.live.otel import Spans
from tests.harness.live.scripted_server import ScriptedServer, ask, chat, gateway, head, saying, usual


def spans_of(script, path="/v1/chat/completions"):
    async def run():
        async with ScriptedServer(script) as server, gateway(server.url) as front:
            await ask(front.url, path=path, body=chat("p", stream=True))
            exporter = InMemorySpanExporter()
            spans = Spans("thunder", front.driver.now, SimpleSpanProcessor(exporter))
            spans.ended(front.ended[0])
            finished = exporter.get_finished_spans()
            spans.close()
            return finished

    (span,) = asyncio.run(run())
    return span


def test_a_finished_call_is_a_span_with_its_tokens_and_moments():
    span = spans_of(usual)
    hold_s = span.attributes["thunderbench.hold_s"]
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.conversation.id": "p",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "http.response.status_code": 200,
        "thunderbench.call": "p/0",
        "thunderbench.scheduler": "thunder",
        "thunderbench.replica": "r0",
        "thunderbench.hold_s": hold_s,
        "thunderbench.stream": True,
    }
    dispatched, first = span.events
    assert (span.name, dispatched.name, first.name) == ("chat m", "dispatched", "first token")
    assert span.start_time <= dispatched.timestamp <= first.timestamp <= span.end_time
    assert span.status.is_unset


def test_a_failed_call_is_an_error_of_its_kind():
    span = spans_of(saying(head(500, "a/b", length=0)), "/v1/completions")
    assert (span.name, span.status.is_ok, span.status.is_unset) == ("text_completion m", False, False)
    assert (span.attributes["error.type"], span.attributes["http.response.status_code"]) == (
        "HTTP 500",
        500,
    )
    assert "gen_ai.usage.input_tokens" not in span.attributes


def test_without_the_extra_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(SetupError, match=r"pip install 'thunderbench\[otel\]'"):
        Spans("thunder", 0.0)
