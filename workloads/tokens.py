"""Token ids of segments: content keys made into tokens that a real server can be sent.

Token `i` of a segment is a fixed function of `(key, i)`: the BLAKE2b digest of the key and of the
number of the block that holds `i` gives the 16 tokens of that block. So a slice costs what the slice
needs, and two segments with one key agree as far as the shorter goes, on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct

from workloads.errors import WorkloadError
from workloads.model import Segment

_BLOCK = 16  # tokens per digest: 16 little-endian words of 4 bytes, BLAKE2b's 64 bytes
_WORDS = Struct("<16I")


def token_ids(key: str, start: int, count: int, vocab_size: int) -> list[int]:
    """Tokens `start` to `start + count` of the content `key`, each in [0, vocab_size).

    Raises WorkloadError for a negative slice or an empty vocabulary. A caller that must not send
    special tokens gives the number of ordinary ids as `vocab_size`.
    """
    if start < 0 or count < 0:
        raise WorkloadError(f"a slice of {count} tokens from {start}", "numbers of at least 0")
    if not 0 < vocab_size <= 2**32:
        raise WorkloadError(f"a vocabulary of {vocab_size} tokens", "1 to 2^32")
    first, skip = divmod(start, _BLOCK)
    seeded = blake2b(key.encode())
    ids: list[int] = []
    for block in range(first, -(-(start + count) // _BLOCK)):
        digest = seeded.copy()
        digest.update(b"\0" + block.to_bytes(8, "little"))
        ids.extend([word % vocab_size for word in _WORDS.unpack(digest.digest())])
    return ids[skip : skip + count]


def context_tokens(segments: Iterable[Segment], vocab_size: int) -> list[int]:
    """Tokens of a whole context: its segments one after the other."""
    ids: list[int] = []
    for segment in segments:
        ids.extend(token_ids(segment.key, 0, segment.tokens, vocab_size))
    return ids
