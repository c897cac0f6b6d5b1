"""A replica for one oversize program, so that it does not wait for ever.

A program is *oversize* when its context exceeds what any replica may hold, even an empty one. The one
that has waited longest reserves the largest replica; the policy empties that replica and then gives it
to the program. The reservation ends when the program is paused or finished, and the review after that
makes no new one, so that ordinary programs get their turn between two oversize ones.
"""

from __future__ import annotations

from collections.abc import Collection

from schedulers.ledger import Account, ProgramEntry


class Reservation:
    """`program` has, or waits for, a replica of its own; `account` is that replica while it empties."""

    def __init__(self, share: float) -> None:
        self.share = share  # of a replica's capacity that programs may hold
        self.program: ProgramEntry | None = None
        self.account: Account | None = None
        self._rest = False  # an oversize turn ended: the next review reserves nothing

    def oversize(self, entry: ProgramEntry, replicas: Collection[Account]) -> bool:
        """Whether a program fits no replica; false when none is up."""
        largest = max((account.kv_tokens for account in replicas), default=0)
        return entry.context_tokens > self.share * largest > 0

    def review(self, waiting: Collection[ProgramEntry], replicas: Collection[Account]) -> None:
        """At a tick's start: keep, end or make the reservation."""
        if self.program is not None:
            gave_up = self.account is not None and not self.program.calls  # they failed while it waited
            if gave_up or not self.oversize(self.program, replicas):
                self.end(self.program)
        rest, self._rest = self._rest, False
        if rest or self.program is not None:
            return
        wanting = [entry for entry in waiting if entry.calls and self.oversize(entry, replicas)]
        if wanting:
            self.program = min(wanting, key=lambda entry: (entry.phase_since, entry.seq))
            self.account = max(replicas, key=lambda account: account.kv_tokens)

    def claim(self) -> tuple[ProgramEntry, Account] | None:
        """The program and its replica once that is empty; it is no longer kept from then on."""
        if self.program is None or self.account is None or self.account.residents:
            return None
        account, self.account = self.account, None
        return self.program, account

    def end(self, entry: ProgramEntry) -> None:
        """A program was paused, has finished or needs it no more."""
        if entry is self.program:
            self._rest = self.account is None
            self.program = self.account = None

    def lose(self, account: Account | None) -> None:
        """A replica went down."""
        if account is not None and account is self.account:
            self.program = self.account = None
