"""Tables that fit the terminal: one that is too wide for it is printed in parts, each with the first column."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table

from mksgn.common.quoting import printable

TEXT_WIDTH = 16  # columns that a text keeps, however narrow the terminal; longer text is wrapped
FRAME = 3  # columns that the frame and the padding add to a column; and one more at the table's end


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]] = (), left: Collection[str] = ()) -> Table:
    """Return a table that `output.print` fits to the width of the terminal.

    Nothing is cut: numbers stay in one line, texts are wrapped, and columns for which no room is left follow in a
    further part below, again after the first column.

    Args:
        title: The line above.
        headings: One for each column.
        rows: A text for each column.
        left: Headings of columns of text, which are left-aligned; the first column is one of them.
    """
    result = _FittedTable(title=printable(title), title_justify="left")
    for heading in headings:
        text = heading == headings[0] or heading in left
        result.add_column(printable(heading), justify="left" if text else "right", overflow="fold")
    for row in rows:
        result.add_row(*map(printable, row))
    return result


class _FittedTable(Table):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, columns in enumerate(_parts(self.columns, options.max_width - 1)):
            part = Table(title=self.title if number == 0 else None, title_justify="left")
            part.columns = [replace(column, _index=index) for index, column in enumerate(columns)]
            part.rows = self.rows
            yield part


def _parts(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """Return the columns of each part, with their widths."""
    first, *others = (_Fit(column) for column in columns)
    first.least = min(first.full, max(TEXT_WIDTH, width // 2 - FRAME))
    parts: list[list[_Fit]] = [[first]]
    for fit in others:
        if len(parts[-1]) > 1 and sum(f.least + FRAME for f in (*parts[-1], fit)) > width:
            parts.append([first])
        parts[-1].append(fit)
    return [_stretched(part, width) for part in parts]


class _Fit:
    """A column, the width at which it fits on one line, and the least one at which it is readable."""

    def __init__(self, column: Column) -> None:
        self.column = column
        heading, *cells = [str(column.header), *map(str, column.cells)]
        widest = max(map(cell_len, cells), default=0)
        self.full = max(widest, cell_len(heading))
        if column.justify == "left":
            widest = min(widest, TEXT_WIDTH)
        self.least = max(widest, max(map(cell_len, heading.split()), default=0))


def _stretched(part: Sequence[_Fit], width: int) -> list[Column]:
    """Give the remaining width to the columns that lack the least."""
    room, columns = width - sum(fit.least + FRAME for fit in part), {}
    for left, fit in zip(range(len(part), 0, -1), sorted(part, key=lambda fit: fit.full - fit.least), strict=True):
        more = max(0, min(fit.full - fit.least, room // left))
        room -= more
        columns[id(fit)] = replace(fit.column, width=fit.least + more)
    return [columns[id(fit)] for fit in part]
