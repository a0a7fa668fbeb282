"""Read what a command printed: its tables, and the first cells of their rows."""


def tables_of(text: str) -> list[list[str]]:
    """Lines of each table, from its upper edge to its lower one."""
    tables: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("┏"):
            tables.append([])
        if tables and line[:1] in ("┏", "┃", "┡", "│", "├", "└"):
            tables[-1].append(line)
    return tables


def first_cells(lines: list[str]) -> list[str]:
    """First cells of a table; of one that goes on in further lines, each piece."""
    cells = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    return [cell for cell in cells if cell]
