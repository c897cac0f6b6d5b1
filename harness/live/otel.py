"""A span per call for OpenTelemetry, with the field's names (`gen_ai.*`). Needs the extra `otel`.

Spans go where the standard variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`),
in batches, over OTLP/HTTP, from a thread of the SDK's own. Prompts and answers are never part of one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness.errors import SetupError
from harness.live.exchange import Ended
from harness.provenance import thunderbench_version

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

_OPERATIONS = {"/v1/completions": "text_completion"}  # all others are chats
_NS = 1_000_000_000


class Spans:
    """Makes spans of calls that ended. `now` is the run's clock at this moment, in seconds.

    `processor` takes the spans; null: those of the environment's settings. Raises `SetupError` when the
    packages are missing.
    """

    def __init__(self, scheduler: str, now: float, processor: SpanProcessor | None = None) -> None:
        try:
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415

            processor = processor or _batches()
        except ImportError as error:
            raise SetupError(
                f"--otel without {error.name}",
                "the extra `otel`",
                "Install it: pip install 'thunderbench[otel]'",
            ) from None
        resource = Resource.create(
            {"service.name": "thunderbench", "service.version": thunderbench_version()}
        )
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("thunderbench", thunderbench_version())
        self._kind, self._failed = SpanKind.CLIENT, Status(StatusCode.ERROR)
        self._scheduler = scheduler
        self._start_ns = time.time_ns() - round(now * _NS)  # of the run's clock

    def ended(self, ended: Ended) -> None:
        """A call is over."""
        call = ended.call
        operation = _OPERATIONS.get(ended.path, "chat")
        span = self._tracer.start_span(
            f"{operation} {ended.model}" if ended.model else operation,
            kind=self._kind,
            start_time=self._at(call.arrived_s),
            attributes=_attributes(ended, operation, self._scheduler),
        )
        if call.placed_s is not None:
            span.add_event("dispatched", timestamp=self._at(call.placed_s))
        if call.first_token_s is not None:
            span.add_event("first token", timestamp=self._at(call.first_token_s))
        if call.end != "finished":
            span.set_status(self._failed)
        span.end(self._at(call.arrived_s if call.ended_s is None else call.ended_s))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _at(self, when: float) -> int:
        return self._start_ns + round(when * _NS)


def _attributes(ended: Ended, operation: str, scheduler: str) -> dict[str, str | int | float | bool]:
    call, usage = ended.call, ended.call.usage
    found: dict[str, str | int | float | bool | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": ended.model,
        "gen_ai.conversation.id": call.program_id,
        "gen_ai.usage.input_tokens": None if usage is None else usage.prompt_tokens,
        "gen_ai.usage.output_tokens": None if usage is None else usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": None if usage is None else usage.cached_tokens,
        "error.type": call.reason or None,
        "http.response.status_code": ended.status or None,
        "thunderbench.call": call.call_id,
        "thunderbench.scheduler": scheduler,
        "thunderbench.replica": None if call.placement is None else call.placement.replica,
        "thunderbench.hold_s": None if call.placed_s is None else call.placed_s - call.arrived_s,
        "thunderbench.stream": ended.stream,
    }
    return {name: value for name, value in found.items() if value is not None}


def _batches() -> SpanProcessor:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    return BatchSpanProcessor(OTLPSpanExporter())
