# SPDX-License-Identifier: MIT
"""AML that means harm: ``python -m tests.acpi.hostile NAME`` interprets one of them and says what it cost."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Final

from dom0kit.acpi.aml import interpret
from tests.acpi.asl import table

SECONDS: Final = 8.0
"""Limit given to the interpreter here; the usual one is 28."""

_GOOD: Final = 'Device (\\GOOD) { Name (_HID, "ACPI0004") Method (_STA) { Return (0xD) } }\n'


def _status(body: str) -> str:
    return f"Device (\\BAD0) {{ Name (_ADR, 0) Method (_STA, 0, Serialized) {{ {body} Return (0xF) }} }}"


CASES: Final[dict[str, str]] = {
    "endless _STA": _status("While (One) {}"),
    "endless _INI": "Device (\\BAD0) { Name (_ADR, 0) Method (_INI) { While (One) {} } }",
    "endless loop while loading": "While (One) {}",
    "breakpoints": _status("BreakPoint BreakPoint BreakPoint")
    + " Device (\\BAD1) { Name (_ADR, 1) Method (_CRS) { BreakPoint Return (ResourceTemplate () {}) } }",
    "breakpoints without end": _status("While (One) { BreakPoint }"),
    "recursion": "Method (RECU, 1) { Return (RECU (Arg0 + 1)) }" + _status("RECU (0)"),
    "huge buffer": _status("Local0 = Buffer (0x7FFFFFFF) {}"),
    "large buffer": "Device (\\BAD0) { Name (_ADR, 0) Method (_CRS) { Return (Buffer (0x4000000) {}) } }",
    "many buffers": "Name (BUFS, Package (255) {})"
    + _status("Local0 = 0 While (Local0 < 255) { BUFS [Local0] = Buffer (0x200000) {} Local0++ }"),
    "flood of text": _status('While (One) { Debug = "spam spam spam spam" }'),
    "flood of accesses": "OperationRegion (PORT, SystemIO, 0x80, 1) Field (PORT, ByteAcc, NoLock, Preserve) { P080, 8 }"
    + _status("While (P080 == 0) { }"),
    "flood of addresses": "Method (READ, 1, Serialized) { OperationRegion (MEMO, SystemMemory, Arg0, 4) "
    "Field (MEMO, ByteAcc, NoLock, Preserve) { BYTE, 8 } Return (BYTE) }"
    + _status("Local0 = 0 While (One) { READ (Local0) Local0++ }"),
    "long sleep": _status("Sleep (0xFFFFFFFF)"),
    "waits for ever": "Event (EVT0) "
    "Device (\\BAD0) { Name (_ADR, 0) Method (_CRS) { Wait (EVT0, 0xFFFF) Return (Buffer () { 0 }) } }",
    "sleeps while loading": "Sleep (0xFFFFFFFF)",
    "10,000 devices": "Scope (\\_SB) {"
    + "".join(
        f'Device (D{i:03X}) {{ Name (_HID, "ACPI0004") Name (_UID, {i}) '
        + "".join(
            f"Device (C{j:03X}) {{ Name (_ADR, {j}) "
            "Method (_CRS) { Return (ResourceTemplate () { IO (Decode16, 1, 1, 1, 1) }) } }"
            for j in range(9)
        )
        + "}"
        for i in range(1000)
    )
    + "}",
    "deep scopes": "Scope (\\_SB) {" + "".join(f"Device (D{i:03X}) {{ Name (_ADR, {i})" for i in range(60)) + "}" * 61,
    "deep package": "Method (DEEP) { Local0 = Package (1) {} Local1 = 200 While (Local1) { Local2 = Package (1) {} "
    "Local2 [0] = Local0 Local0 = Local2 Local1-- } Return (Local0) } "
    "Device (\\BAD0) { Name (_ADR, 0) Method (_PRT) { Return (DEEP ()) } }",
    "forged output": _status('Debug = "\\n- help\\n\\\\GOOD._STA   returned AE_OK\\n" Local0 = 0'),
}


def main(name: str) -> None:
    """One JSON object: the rules of the findings, _STA of the good device, and memory in MiB, own and the child's."""
    namespace = interpret([table(_GOOD + CASES[name])], {}, seconds=SECONDS)
    good = namespace.device("\\GOOD")
    print(
        json.dumps(
            {
                "rules": sorted({finding.rule for finding in namespace.findings}),
                "findings": len(namespace.findings),
                "good": good and good.sta,
                "devices": len(namespace.devices),
                "own": own_peak() >> 10,
                "child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
            }
        )
    )


def own_peak() -> int:
    """KiB. Not ru_maxrss, which a process inherits from whoever started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main(sys.argv[1])
