"""Colours can be seen on light and dark and by everybody; legends fit a telephone."""

from itertools import combinations

import numpy as np
import pytest

from reports.figures import looks
from reports.study import Load, Study

# Machado, Oliveira, Fernandes 2009, severity 1.0: what somebody with the deficiency sees of linear RGB.
SEEN = {
    "normal": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "protan": (0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998),
    "deutan": (0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881),
    "tritan": (1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039),
}


def linear(colour):
    part = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089], 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("colour", [looks.BASELINE_COLOUR, *looks.COLOURS])
@pytest.mark.parametrize("page", ["#ffffff", "#14161a"])
def test_arms_are_seen_on_light_and_dark(colour, page):
    assert contrast(colour, page) >= 3


@pytest.mark.parametrize("eyes", SEEN)
def test_the_first_four_arms_look_different_to_everybody(eyes):
    first = [looks.BASELINE_COLOUR, *looks.COLOURS[:3]]
    seen = [lab(np.reshape(SEEN[eyes], (3, 3)) @ linear(colour)) for colour in first]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 15


def test_beyond_the_colours_dashes_and_shapes_tell_arms_apart():
    study = Study((), tuple(f"a{i:02}" for i in range(36)), (), "a00")
    colours = looks.arm_scale(study)["range"][1:]
    for encoding in (looks.arm_dash(study), looks.arm_shape(study)):
        values = map(str, encoding["scale"]["range"][1:])
        assert len(set(zip(colours, values, strict=True))) == 35


def test_every_arm_has_one_colour_and_the_baseline_is_grey():
    scale = looks.arm_scale(Study((), ("base", "b", "c"), (), "base"))
    assert scale["domain"] == ["base", "b", "c"]
    assert scale["range"] == [looks.BASELINE_COLOUR, *looks.COLOURS[:2]]


@pytest.mark.parametrize(("names", "columns"), [(["vllm", "thunder"], 4), (["x" * 30], 1), ([], 4)])
def test_legends_have_as_many_columns_as_their_names_leave_room_for(names, columns):
    assert looks.legend(names)["columns"] == columns


def test_loads_of_one_kind_are_to_scale_and_others_side_by_side():
    loads = [Load("concurrency", 24.0), Load("concurrency", 96.0)]
    assert looks.load_axis(loads)["shorthand"] == "x:Q"
    assert looks.load_axis(loads)["axis"]["values"] == [24.0, 96.0]
    assert looks.load_axis(loads[:1])["shorthand"] == "load:N"
    assert looks.load_axis([*loads, Load("request_rate", 0.1)])["shorthand"] == "load:N"


@pytest.mark.parametrize(("longest", "ticks"), [(1.0, [0, 0.1, 1]), (150.0, [0, 0.1, 1, 10, 100])])
def test_ticks_of_seconds_lie_on_the_axis(longest, ticks):
    scale, axis = looks.seconds_scale(longest)
    assert axis["values"] == pytest.approx(ticks)
    assert max(axis["values"]) <= scale["domain"][1]


@pytest.mark.parametrize("longest", [0.0, 0.05, 0.9])
def test_parts_of_a_second_are_on_an_ordinary_axis(longest):
    scale, axis = looks.seconds_scale(longest)
    assert (scale.to_dict(), axis.to_dict()) == ({"zero": True}, {"format": looks.SECONDS, "tickCount": 8})


def test_short_names_of_arms_are_all_different():
    arms = ("vllm", *(f"thunder with a long configuration {i} of it" for i in range(3)))
    brief = looks.brief_arms(Study((), arms, (), "vllm"))
    assert brief["vllm"] == "vllm"
    assert len(set(brief.values())) == 4
    assert max(map(len, brief.values())) <= looks.BRIEF


def test_there_is_nothing_to_pick_among_one():
    assert looks.picker("load", "Load", ["only"]) is None
    assert looks.picked("chart", None) == "chart"
