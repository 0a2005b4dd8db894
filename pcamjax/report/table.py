"""A table as text: the same cells in a page, in CSV and in Markdown."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

from pcamjax.files import atomic_file


class Table(NamedTuple):
    """Cells of text; a line break in one parts a value from its interval.

    Attributes:
      name: of its files.
      groups: what stands over the columns: a title, and over how many; none where there is nothing to say.
      textual: its columns are words rather than numbers.
    """

    name: str
    title: str
    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""
    textual: bool = False

    def heads(self) -> list[str]:
        """The columns by their whole names, for forms that have one line of heads."""
        over = [title for title, span in self.groups for _ in range(span)] or [""] * len(self.columns)
        return [f"{title}: {column}" if title else column for title, column in zip(over, self.columns, strict=True)]


def write_table(table: Table, folder: Path) -> None:
    """Writes `<name>.csv` and `<name>.md`, atomically."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(table.heads())
    writer.writerows([cell.replace("\n", " ") for cell in row] for row in table.rows)
    for suffix, text in (("csv", lines.getvalue()), ("md", markdown(table))):
        with atomic_file(folder / f"{table.name}.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8")


def markdown(table: Table) -> str:
    """The table with its title and its note."""
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    body = [line(table.heads()), line(rule), *(line(list(row)) for row in table.rows)]
    return "\n".join([f"**{table.title}**", "", *body, *(["", table.note] if table.note else [])]) + "\n"
