"""The content tree: contexts share exactly the prefix on which their tokens agree."""

from hypothesis import given
from hypothesis import strategies as st

from harness.virtual.content import ContentTree, Place
from harness.virtual.engine import Piece

contexts = st.lists(
    st.lists(st.builds(Piece, st.sampled_from("abc"), st.integers(1, 5)), max_size=5),
    min_size=2,
    max_size=6,
)


def tokens(pieces):
    """The context token by token; token i of a piece is (key, i)."""
    return [(piece.key, i) for piece in pieces for i in range(piece.tokens)]


def shared(first: Place, second: Place) -> int:
    """Tokens that two places have in common, by the tree alone."""

    def lengths(place):
        _, branch, length = place
        found = {}
        while branch is not None:
            found[branch] = length
            length = branch.start
            branch = branch.parent
        return found

    a, b = lengths(first), lengths(second)
    return max(min(a[branch], b[branch]) for branch in a if branch in b)


@given(contexts)
def test_places_share_what_their_tokens_share(contexts):
    tree = ContentTree()
    places = [tree.place(pieces) for pieces in contexts]
    for first, one in zip(places, contexts, strict=True):
        assert first[2] == len(tokens(one))
        for second, other in zip(places, contexts, strict=True):
            same = 0
            for x, y in zip(tokens(one), tokens(other), strict=False):
                if x != y:
                    break
                same += 1
            assert shared(first, second) == same


@given(contexts)
def test_placing_in_two_goes_is_placing_in_one(contexts):
    tree = ContentTree()
    for pieces in contexts:
        half = tree.place(pieces[: len(pieces) // 2])
        assert tree.place(pieces[len(pieces) // 2 :], half) == tree.place(pieces)


def test_a_program_that_only_appends_stays_on_one_branch():
    tree = ContentTree()
    place = tree.place([Piece("system", 10)])
    for i in range(50):
        place = tree.place([Piece(f"out{i}", 3), Piece(f"obs{i}", 7)], place)
    assert place[1] is tree.root
    assert not tree.root.children


def test_a_place_of_another_tree_is_not_known():
    tree, other = ContentTree(), ContentTree()
    place = tree.place([Piece("a", 1)])
    assert tree.known(place) is place
    assert other.known(place) is None
    assert other.known(None) is None
