"""Templates and figures -> one HTML file with its styles and pictures inside, without scripts or requests."""

import base64
import os
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure

from pcamjax.files import atomic_file
from pcamjax.report import figures


class Picture(NamedTuple):
    """A PNG inside a page: a data URI, what it shows in words, its width in CSS pixels."""

    source: str
    alternative: str
    width: int


def embed(figure: Figure, path: str | os.PathLike, alternative: str) -> Picture:
    """Saves the figure as PNG at `path`, and gives it in the form that goes into a page."""
    png = figures.save(figure, path)
    width = round(96 * figure.get_figwidth())
    return Picture("data:image/png;base64," + base64.b64encode(png).decode(), alternative, width)


def write_page(path: str | os.PathLike, template: str, **values: Any) -> Path:
    """Renders a template of this package to `path`, atomically; every value is escaped."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("pcamjax.report"), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    text = environment.get_template(template).render(**values)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)
