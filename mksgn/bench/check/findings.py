"""Result of checking a run's folder: faults, what was checked, what could not be checked, and remarks."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from mksgn.bench.errors import FaultyRecordError
from mksgn.common.console import output, print_json

SCHEMA = "mksgn.check/1"


@dataclass(frozen=True)
class Finding:
    """One line of a result. `where` is a file, or a link of the chain of parents."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass
class CheckResult:
    """The findings by severity: `faults` make the record untrustworthy, `unchecked` and `remarks` do not."""

    folder: Path
    checked: list[str] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    unchecked: list[Finding] = field(default_factory=list)
    remarks: list[Finding] = field(default_factory=list)

    def fault(self, where: str, what: str) -> None:
        self.faults.append(Finding(where, what))

    def skip(self, where: str, what: str) -> None:
        self.unchecked.append(Finding(where, what))

    def remark(self, where: str, what: str) -> None:
        self.remarks.append(Finding(where, what))

    @property
    def passed(self) -> bool:
        return not self.faults

    def lines(self) -> list[str]:
        """List what was checked, what was not, and the remarks. Faults are listed by `raise_faults`."""
        return [
            *(f"checked: {what}" for what in self.checked),
            *(f"not checked: {line}" for line in _joined(self.unchecked)),
            *(f"remark: {line}" for line in _joined(self.remarks)),
        ]

    def document(self) -> dict[str, Any]:
        """Return the findings for JSON."""

        def listed(findings: list[Finding]) -> list[dict[str, str]]:
            return [asdict(finding) for finding in findings]

        return {
            "schema": SCHEMA,
            "folder": str(self.folder),
            "passed": self.passed,
            "checked": self.checked,
            "faults": listed(self.faults),
            "unchecked": listed(self.unchecked),
            "remarks": listed(self.remarks),
        }

    def show(self, *, as_json: bool) -> None:
        """Print the lines, or the document."""
        if as_json:
            print_json(self.document())
            return
        for line in self.lines():
            output.print(line)

    def raise_faults(self) -> None:
        """Raise FaultyRecordError (exit code 2) with every fault, if there is one."""
        if self.faults:
            raise FaultyRecordError(str(self.folder), [str(finding) for finding in self.faults])


def _joined(findings: list[Finding]) -> Iterator[str]:
    """Yield a line for each finding; consecutive ones that say the same share a line."""
    for what, same in groupby(findings, attrgetter("what")):
        yield f"{', '.join(finding.where for finding in same)}: {what}"
