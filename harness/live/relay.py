"""One call from its arrival to its end: identity, size, the policy's word, the replica, what came back.

    who is it (identity)  ->  how long is it (wire)  ->  driver.open  ->  wait for the policy to place it
      ->  send it to that replica  ->  hand on what comes, reading along (sse)  ->  finished or failed

Knows no sockets: a request is data, an answer a `ports.Answer`, replicas stand behind `ports.Upstream`.
So tests run it without ports, and whoever writes to the client (`gateway`) needs no policy.

Every call that was opened ends once, whatever happens:

- its answer is read to its end: *finished* with the server's usage. The policy is told before the last
  bytes are handed on, since the next call of a program may follow them at once. Where the server says
  no usage, output events are counted and the prompt is what it was taken for;
- the server answers with an error, breaks off, or says nothing for too long: *failed*;
- its replica is lost, or the policy fails: *failed* by the driver, and `exchange.Loss` wakes whoever waits;
- the client leaves: whoever runs `call`, or reads the answer, is cancelled or closes it: *cancelled*,
  and the request to the replica is cut, so that the server stops generating.

A call without identity is a program of its own, released when it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count

from harness.errors import ThunderbenchError
from harness.live.answers import Incoming, Outward, Plain, bad_gateway, unavailable
from harness.live.calls import OpenCall
from harness.live.driver import LiveDriver
from harness.live.exchange import (
    SUCCESS,
    Ended,
    Exchange,
    Loss,
    Lost,
    Passed,
    Relayed,
    headers_of,
    is_stream,
)
from harness.live.hook_messages import PROGRAM_ARGUMENT
from harness.live.http1 import HOP_BY_HOP
from harness.live.identity import Identity, IdentityRules
from harness.live.ports import Outgoing, Upstream, UpstreamFailed
from harness.live.prompt_sizes import PromptSizes
from harness.live.wire import Looked, content_of, look, prepare
from schedulers.contract import PromptSeen

_NOT_SENT_ON = HOP_BY_HOP | {"host", "content-length", "accept-encoding", "expect"}
_SIZED_BEYOND = 256  # programs that are over are remembered beyond as many as there are, before a sweep
_CLOSING = "this server is shutting down"


class Relay:
    """Takes clients' calls to replicas as the policy of `driver` says.

    `own_headers` are those that concern the gateway alone (lower case), such as its key's. `on_end` is
    told of every call that is over, `on_unreachable` of every replica (with the reason) to which a
    connection failed. `tell_engine` adds to each request what the engine plug-in needs to know;
    `keep_bodies` tells `on_end` what the client sent.
    """

    def __init__(
        self,
        driver: LiveDriver,
        upstream: Upstream,
        *,
        identity: IdentityRules | None = None,
        own_headers: frozenset[str] = frozenset(),
        tell_engine: bool = False,
        keep_bodies: bool = False,
        on_end: Callable[[Ended], None] | None = None,
        on_unreachable: Callable[[str, str], None] | None = None,
    ) -> None:
        self.driver, self.sizes = driver, PromptSizes()
        driver.on_program_over = self.sizes.forget
        self.draining = False
        self._upstream, self._identity = upstream, identity or IdentityRules()
        self._left_out = _NOT_SENT_ON | own_headers
        self._tell_engine, self._keep_bodies = tell_engine, keep_bodies
        self._on_end, self._on_unreachable = on_end, on_unreachable
        self._wants_content = PromptSeen in driver.policy.observes
        self._sized: set[str] = set()  # programs whose prompts were estimated
        self._numbers = count()
        self._passed = count()

    async def call(self, incoming: Incoming) -> Outward:
        """Take one call to a replica; returns with the head of the answer. The caller closes it."""
        if self.draining:
            return unavailable(_CLOSING)
        looked = look(incoming.path, incoming.body)
        identity = self._identity.identify(incoming.headers, looked.program_id)
        try:
            call = self._open(identity, looked, incoming.body)
        except ThunderbenchError as error:
            return unavailable(f"the scheduler failed: {error}")
        path, body = incoming.path.partition("?")[0], incoming.body if self._keep_bodies else b""
        over = partial(self._over, partial(Ended, call, path, looked.model, looked.stream, body))
        try:
            return await self._serve(call, looked, incoming, over)
        except BaseException:  # whoever waited has left
            call.cancelled()
            over(0)
            raise

    def _open(self, identity: Identity, looked: Looked, body: bytes) -> OpenCall:
        program_id = identity.program_id
        alone = program_id is None
        if program_id is None:
            program_id = self._name()
        self._sized.add(program_id)
        if len(self._sized) > _SIZED_BEYOND + 2 * len(self.driver.programs):
            self._forget_gone()
        tokens = self.sizes.estimate(program_id, looked)
        content = content_of(looked, body) if self._wants_content else None
        self.driver.arrive(program_id, needs_sandbox=looked.needs_sandbox)
        call = self.driver.open(program_id, tokens, content=content)
        if alone or identity.final:
            self.driver.release(program_id)  # when this call has ended
        return call

    def _forget_gone(self) -> None:
        """Drop what is known of the prompts of programs that are over."""
        for program_id in self._sized - self.driver.programs.keys():
            self.sizes.forget(program_id)
        self._sized &= self.driver.programs.keys()

    def _name(self) -> str:
        """A name that no program has."""
        while (name := f"anonymous-{next(self._numbers)}") in self.driver.programs:
            pass
        return name

    async def _serve(
        self, call: OpenCall, looked: Looked, incoming: Incoming, over: Callable[[int], None]
    ) -> Outward:
        """The answer to an open call. Once it is returned, closing it ends the call."""
        placement = await call.placed()
        if placement is None:
            return self._refuse(call, over, unavailable(f"the call was not served: {call.reason}"))
        hides_usage = looked.can_ask_usage
        xargs = {PROGRAM_ARGUMENT: call.program_id} if self._tell_engine else None
        body = prepare(
            looked, incoming.body, priority=placement.priority, xargs=xargs, ask_usage=hides_usage
        )
        request = Outgoing(incoming.method, incoming.path, self._headers(incoming), body)
        loss = Loss(call)
        try:
            with loss:
                answer = await self._upstream.send(placement.replica, request)
        except Lost as lost:
            return self._refuse(call, over, unavailable(str(lost)))
        except UpstreamFailed as error:
            call.failed(error.reason)
            return self._refuse(call, over, self._unreached(placement.replica, error))
        exchange = Exchange(call, looked, answer, loss, self.sizes, over)
        if answer.status in SUCCESS and is_stream(answer):
            return Relayed(exchange, hide_usage=hides_usage)
        return await exchange.read_whole()

    @staticmethod
    def _refuse(call: OpenCall, over: Callable[[int], None], answer: Plain) -> Plain:
        """An answer of our own to a call that has ended."""
        answer.headers += headers_of(call)
        over(answer.status)
        return answer

    def _unreached(self, replica: str, error: UpstreamFailed) -> Plain:
        if self._on_unreachable is not None:
            self._on_unreachable(replica, error.reason)
        return bad_gateway(error)

    def _headers(self, incoming: Incoming) -> dict[str, str]:
        connection = incoming.headers.get("Connection")
        left_out = self._left_out
        if connection is not None:  # names headers that are its own
            left_out |= {name.strip().lower() for name in connection.split(",")}
        headers: dict[str, str] = {}
        for name, value in incoming.headers.items():
            key = name.lower()
            if key in left_out:
                continue
            if name in headers:  # said twice, which means the same as a list (RFC 9110, section 5.3)
                value = f"{headers[name]}{'; ' if key == 'cookie' else ', '}{value}"  # noqa: PLW2901
            headers[name] = value
        headers["Accept-Encoding"] = "identity"  # a stream must be readable
        return headers

    def _over(self, ended: Callable[[int], Ended], status: int) -> None:
        """A call has ended, and its client knows as much as it ever will."""
        if self._on_end is not None:
            self._on_end(ended(status))

    def drain(self) -> None:
        """Take no more calls, and send away those that no replica has yet."""
        self.draining = True
        for call in list(self.driver.calls.values()):
            if call.placement is None:
                call.failed(_CLOSING)

    # ------------------------------------------------------------ what no policy need decide

    async def pass_on(self, incoming: Incoming) -> Outward:
        """Send a request that is no call to a replica that is up, taking turns."""
        replicas = list(self.driver.replicas)
        if self.draining or not replicas:
            return unavailable(_CLOSING if self.draining else "no server is up")
        replica = replicas[next(self._passed) % len(replicas)]
        request = Outgoing(incoming.method, incoming.path, self._headers(incoming), incoming.body)
        try:
            return Passed(await self._upstream.send(replica, request), replica)
        except UpstreamFailed as error:
            return self._unreached(replica, error)
