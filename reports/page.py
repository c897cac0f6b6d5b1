"""A study as one HTML file that needs nothing but itself.

Everything is inside: style, the Vega bundle, the charts' data. A content security policy lets only the
scripts that were put in here run, by their hashes, and lets nothing be loaded. Names come from users and
from models, so nothing is trusted: Jinja escapes every text, control characters and those that turn the
direction of writing are replaced, and data inside scripts contain no `<`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness.errors import SetupError
from reports.content import Content, Table
from reports.text import NOTHING

_HARMFUL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_CELL_LENGTH = 160
_WORD_LENGTH = 30
_PLACES = ((1000, 0), (100, 1), (1, 2))  # decimals by size: four digits or so


def render(content: Content) -> str:
    """The page as text. The same content gives the same text."""
    templates = _environment()
    scripts = [for_script(_bundle()), for_script(_file("report.js"))]
    return templates.get_template("report.html").render(
        content=content,
        policy=_policy(scripts),
        style=Markup(_file("report.css")),  # noqa: S704 - our own file
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - made safe by `for_script`
        specs=[(name, Markup(for_data(spec))) for name, spec in _specs(content)],  # noqa: S704 - by `for_data`
    )


def write(page: str, path: Path) -> None:
    """Write a page whole or not at all. Raises SetupError when that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
        partial = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(page)
            partial.chmod(0o666 & ~_umask())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}", "a place that can be written") from error


def _umask() -> int:
    """What the process takes from the rights of new files; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def cleaned(text: str) -> str:
    """A text without characters that show nothing and change how others are shown."""
    return _HARMFUL.sub("\ufffd", text)


def cells(table: Table) -> list[list[tuple[str, str]]]:
    """Per row the class and the text of every cell; numbers of a column have one number of decimals."""
    numeric = table.numeric
    places = [
        column_places([row[i] for row in table.rows]) if is_n else None for i, is_n in enumerate(numeric)
    ]
    return [
        [
            ("n" if is_n else "long" if has_long_word(value) else "", cell(value, digits))
            for value, is_n, digits in zip(row, numeric, places, strict=True)
        ]
        for row in table.rows
    ]


def column_places(values: Sequence[Any]) -> int | None:
    """Decimals that suit all numbers of a column; null when their sizes are too far apart."""
    sizes = [abs(value) for value in values if value is not None]
    if all(float(size).is_integer() for size in sizes):
        return 0
    places = next((places for least, places in _PLACES if max(sizes) >= least), None)
    too_small = places is None or any(0 < size < 10.0**-places for size in sizes)
    return None if too_small else places


def cell(value: Any, places: int | None = None) -> str:
    """A value as it stands in a table: numbers in few digits, very long texts cut, nothing as a dash."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        places = column_places([value]) if places is None else places
        return f"{value:.3g}" if places is None else f"{value:,.{places}f}"
    text = str(value)
    if len(text) <= _CELL_LENGTH:
        return text
    return f"{text[:_CELL_LENGTH]}\u2026 ({len(text):,} characters)"


def has_long_word(value: Any) -> bool:
    """Whether a text has a word that may have to be broken to fit a column."""
    return isinstance(value, str) and any(len(word) > _WORD_LENGTH for word in value.split())


def for_data(value: Mapping[str, Any]) -> str:
    """JSON that nothing can break out of inside a script element."""
    text = json.dumps(_without_strangers(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _without_strangers(value: Any) -> Any:
    """Vega-Lite's `$schema` is the address of a site that the page never asks; texts are `cleaned`."""
    if isinstance(value, Mapping):
        return {
            cleaned(str(key)): _without_strangers(each) for key, each in value.items() if key != "$schema"
        }
    if isinstance(value, (list, tuple)):
        return [_without_strangers(each) for each in value]
    return cleaned(value) if isinstance(value, str) else value


def for_script(source: str) -> str:
    """JavaScript as it may stand inside a script element: no end tag, no comment, one kind of line end."""
    plain = source.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"<(?=/script|!--)", r"\\x3c", plain, flags=re.IGNORECASE)


def _specs(content: Content) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for figure in content.figures:
        yield f"{figure.id}-spec", figure.spec
        if figure.relative_spec is not None:
            yield f"{figure.id}-relative-spec", figure.relative_spec


def _policy(scripts: list[str]) -> str:
    """Style may stand in attributes, because Vega sets it there; script may not."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed in one script that leaves nothing but `vegaEmbed` behind."""
    import vl_convert  # noqa: PLC0415 - a JavaScript engine

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return f"(() => {{{bundle}\n}})();"


def _file(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: cleaned(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cells"] = cells
    return environment
