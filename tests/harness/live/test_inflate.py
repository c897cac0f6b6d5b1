"""Unpacking in pieces: whole, bounded, and quiet about what is broken."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.live import inflate
from harness.live.inflate import Inflate, inflated


def pack(data, encoding):
    if encoding == "gzip":
        return gzip.compress(data)
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS if encoding == "zlib" else -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@given(st.binary(max_size=500), st.sampled_from(["gzip", "zlib", "raw"]), st.integers(1, 40))
def test_what_was_packed_comes_back_however_it_is_cut(data, encoding, step):
    packed = pack(data, encoding)
    unpack = Inflate.of("gzip" if encoding == "gzip" else "deflate", 500)
    pieces = [unpack.feed(packed[at : at + step]) for at in range(0, len(packed), step)]
    assert b"".join(pieces) == data


def test_encodings_have_no_case_and_unknown_ones_are_null():
    assert inflated(pack(b"x", "gzip"), " X-GZip ") == b"x"
    assert inflated(b"x", "") == inflated(b"x", "Identity") == b"x"
    assert inflated(b"x", "br") is None
    assert Inflate.of("gzip, deflate", 9) is None


def test_members_of_gzip_follow_each_other():
    assert inflated(pack(b"a", "gzip") + pack(b"b", "gzip"), "gzip") == b"ab"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_is_broken_is_null(encoding):
    assert inflated(b"\xff" * 40, encoding) is None


def test_a_piece_may_become_as_long_as_the_limit_and_no_longer():
    packed = pack(b"x" * 100, "gzip")
    assert Inflate.of("gzip", 100).feed(packed) == b"x" * 100
    assert Inflate.of("gzip", 99).feed(packed) is None


def test_a_body_is_unpacked_to_a_limit(monkeypatch):
    monkeypatch.setattr(inflate, "_LONGEST_BODY", 100)
    assert inflated(pack(b"x" * 100, "raw"), "deflate") == b"x" * 100
    assert inflated(pack(b"x" * 101, "raw"), "deflate") is None


def test_what_follows_a_deflate_stream_is_left_out():
    assert inflated(pack(b"x", "zlib") + b"rest", "deflate") == b"x"
