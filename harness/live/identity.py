"""Which program a request belongs to, from its body and its headers.

An id comes from the body's `program_id`, else from the first configured header that has one. Ids are
stripped; one that is empty, longer than 256 characters or not printable counts as absent, and the next
place is looked at.

Sub-agents. `x-dynamo-parent-session-id` names the parent of the request's session. A session with a parent
belongs to the program at the root of its chain, so that an agent and its sub-agents are one program with
overlapping calls. Whoever was told to have a parent keeps it, also in requests that do not say so again;
parents that form a ring have no root, and the session that would close the ring is a root itself.
The session is the value of `x-dynamo-session-id`, or where that is absent the id that was found. An id
that is not the session's (a body's `program_id` beside a session header of another value) names the
program outright, and parents do not matter then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from harness.errors import SetupError

SESSION_HEADER = "x-dynamo-session-id"
PARENT_HEADER = "x-dynamo-parent-session-id"
FINAL_HEADER = "x-dynamo-session-final"
DEFAULT_HEADERS = ("X-Program-Id", "X-Session-Id", SESSION_HEADER, "X-Correlation-ID")

LONGEST_ID = 256  # characters: ids become keys of tables, labels and file columns
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2


class Identity(NamedTuple):
    """Who a request says it is.

    `program_id` is null for a request without identity. `final`: the program is over after this request.
    `parent_id` is the parent session that this request names.
    """

    program_id: str | None
    final: bool
    parent_id: str | None


class IdentityRules:
    """The headers that carry identity, in order, and the parents of `known` sessions heard of last.

    Header names are compared without case. Raises `SetupError` for a name that no header can have.
    """

    def __init__(self, headers: Iterable[str] = DEFAULT_HEADERS, known: int = 4096) -> None:
        self._headers = tuple(validated_header(name).lower() for name in headers)
        self._known = known
        self._roots: dict[str, str] = {}  # child -> the root it had when last heard of, latest last

    def identify(self, headers: Mapping[str, str], body_program_id: str | None) -> Identity:
        """Whose request it is; of a header that is repeated, the first counts."""
        lowered: dict[str, str] = {}
        for name, value in headers.items():
            lowered.setdefault(name.lower(), value)
        found = valid_id(body_program_id)
        if found is None:
            for name in self._headers:
                found = valid_id(lowered.get(name))
                if found is not None:
                    break
        parent = valid_id(lowered.get(PARENT_HEADER))
        if found is None:
            return Identity(None, final=False, parent_id=parent)
        is_session = found == (valid_id(lowered.get(SESSION_HEADER)) or found)
        root = self._root(found, parent) if is_session else found
        says_final = lowered.get(FINAL_HEADER, "").strip().lower() in {"true", "1"}
        return Identity(root, says_final and root == found, parent)

    def _root(self, session: str, parent: str | None) -> str:
        """The program of a session. No chain is a ring: a root that is remembered has no root itself."""
        roots = self._roots
        root = session if parent is None else parent
        while root in roots:
            root = roots[root]
        if root == session:
            return session
        roots.pop(session, None)
        roots[session] = root
        if len(roots) > self._known:
            del roots[next(iter(roots))]
        return root


def validated_header(name: str) -> str:
    """`name` itself; raises `SetupError` unless a header can have it."""
    if not _TOKEN.fullmatch(name):
        raise SetupError(
            f"header name {name!r}",
            "letters, digits and !#$%&'*+-.^_`|~ only",
            "Give the name alone, such as X-Session-Id",
        )
    return name


def valid_id(text: str | None) -> str | None:
    """The id that `text` is, stripped; null where it is none."""
    if text is None:
        return None
    text = text.strip()
    return text if text and len(text) <= LONGEST_ID and text.isprintable() else None
