import pytest

from harness.commands.show import RENDER
from harness.lazy import named
from harness.runner import VERDICT


def test_a_name_is_a_module_and_an_attribute():
    assert named("harness.lazy:named") is named


@pytest.mark.parametrize("name", [VERDICT, RENDER])
def test_what_the_summary_needs_is_there(name):
    assert callable(named(name))


@pytest.mark.parametrize(
    ("name", "error"), [("harness.nothing:named", ImportError), ("harness.lazy:nothing", AttributeError)]
)
def test_a_wrong_name_is_our_bug_and_is_not_hidden(name, error):
    with pytest.raises(error):
        named(name)
