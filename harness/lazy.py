"""Things found by name when they are first needed: what is slow to import, and what `harness` may not know.

`harness` never imports `reports`: a run can be recorded without them. Its end-of-run summary and the
command line name what they want of `reports` as text, in this one form.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def named(name: str) -> Any:
    """What stands at `package.module:attribute`, imported now; ImportError and AttributeError pass."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
