"""What figure tests share: the drawn figures by id, and whether a spec is one that Vega can draw."""

import re
import struct

import vl_convert

from reports.figures import Omitted
from reports.figures.figure import for_file


def by_id(drawn):
    """The figures of a module by id, and the reasons of those it left out."""
    drawn = list(drawn)
    figures = {one.id: one for one in drawn if not isinstance(one, Omitted)}
    return figures, {one.id: one.reason for one in drawn if isinstance(one, Omitted)}


def data(spec, name):
    """The rows that a spec holds under a name."""
    return spec["datasets"][name]


def points(rows, *fields):
    """Rows as tuples of some fields."""
    return [tuple(row[field] for field in fields) for row in rows]


def marks(figure):
    """How many paths and texts the figure's SVG has: its marks, axes and legends."""
    svg = vl_convert.vegalite_to_svg(for_file(figure))
    return len(re.findall(r"<(path|text|line)", svg))


def png_size(path):
    """Width and height of a PNG, from its header."""
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:24])
