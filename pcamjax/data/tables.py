"""CSV files from outside, with errors that name the line."""

import csv
from collections.abc import Iterator
from pathlib import Path

from pcamjax.errors import InputError
from pcamjax.files import require_file

LARGEST_TABLE = 256 << 20  # bytes; the largest of PCam has 14e6
MOST_ROWS = 4_000_000
MOST_COLUMNS = 100


def read_table(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Gives, for each row, where it stands ("<file>, line <n>") and its fields by column name.

    Raises:
      InputError: the file is missing, larger than 256 MiB or no CSV in UTF-8, one of `columns` is missing, or a row has
        other fields.
    """
    try:
        require_file(file, LARGEST_TABLE)
        with open(file, newline="", encoding="utf-8-sig") as opened:
            rows = csv.DictReader(opened)
            names = rows.fieldnames or []
            if missing := [name for name in columns if name not in names]:
                raise InputError(f"{file}: no column {missing[0]!r} among {', '.join(names)[:200]!r}; "
                                 f"expected a header with {', '.join(columns)}")
            if len(names) > MOST_COLUMNS or len(set(names)) < len(names):
                raise InputError(f"{file}: {len(names)} columns, expected {MOST_COLUMNS} at most, each name once")
            for count, row in enumerate(rows):
                if count == MOST_ROWS:
                    raise InputError(f"{file}: more than {MOST_ROWS} rows; divide the table")
                where = f"{file}, line {rows.line_num}"
                if None in row or None in row.values():
                    raise InputError(f"{where}: not {len(names)} fields, as the header has; mend this line")
                yield where, row
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; expected a CSV file with {', '.join(columns)}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not readable as a CSV file in UTF-8 ({error})") from None


def read_label(text: str, where: str) -> int:
    """The label 0 or 1 that a field holds; InputError for anything else."""
    if text not in ("0", "1"):
        raise InputError(f"{where}: label {text[:40]!r}, expected 0 or 1")
    return int(text)
