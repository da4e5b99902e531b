# SPDX-License-Identifier: MIT
"""What can be wrong with AML and its interpretation: the rules."""

from __future__ import annotations

from typing import Final

from dom0kit.finding import Severity, rule

NO_INTERPRETER: Final = rule(
    "aml.no-interpreter",
    Severity.WARNING,
    title="acpiexec is not installed",
    meaning="AML is interpreted by ACPICA's acpiexec, which was not found. There is no namespace, and so no interrupt "
    "routing, no root bridge windows and no hotplug information from ACPI.",
    advice="apt install acpica-tools",
    specification="ACPI 6.5, chapter 20",
)
NO_DSDT: Final = rule(
    "aml.no-dsdt",
    Severity.WARNING,
    title="no usable DSDT",
    meaning="The machine's tables hold no DSDT, or one whose header does not fit its bytes. Without it there is no "
    "namespace.",
    advice="Record again with all of /sys/firmware/acpi/tables.",
    specification="ACPI 6.5, section 5.2.11.1",
)
TABLE_REJECTED: Final = rule(
    "aml.table-rejected",
    Severity.WARNING,
    title="the interpreter rejects a table",
    meaning="A definition block could not be loaded, wholly or in part. Objects that it declares are missing, and "
    "methods that use them fail.",
    advice="Disassemble the table (iasl -d) and look at the place named; an operating system may load it all the same.",
    specification="ACPI 6.5, section 5.2.11",
)
NAMES: Final = rule(
    "aml.names-unresolved",
    Severity.INFO,
    title="tables refer to names that do not exist, or declare names twice",
    meaning="While the tables were loaded, some names could not be found, or existed already. The statements around "
    "them were skipped. Firmware often refers to devices that a model does not have; a table that is missing from the "
    "recording, one that is normally loaded later, or a wrong order of tables shows in the same way.",
    advice="Nothing, unless an object is missed; then look for the table that declares it.",
    specification="ACPI 6.5, sections 5.2.11 and 5.3",
)
INITIALISATION: Final = rule(
    "aml.initialisation-failed",
    Severity.INFO,
    title="an initialisation method was aborted",
    meaning="_INI or _REG methods failed under the interpreter, mostly because they wait for hardware that is only "
    "simulated. Variables they would have set, such as the operating system's type, keep their first values.",
    advice="Nothing. Evaluate on the machine itself where a value matters.",
    specification="ACPI 6.5, sections 6.5.1 and 6.5.4",
)
EVALUATION_FAILED: Final = rule(
    "aml.evaluation-failed",
    Severity.WARNING,
    title="an object cannot be evaluated",
    meaning="Evaluating the object ended with an error, so its value is unknown here. An operating system that "
    "meets the same error ignores the object or the device.",
    advice="Where the error is a missing object, look whether an SSDT is missing from the recording.",
    specification="ACPICA status codes (acexcep.h); ACPI 6.5, section 5.7",
)
WRONG_TYPE: Final = rule(
    "aml.wrong-type",
    Severity.INFO,
    title="an object has a type it must not have",
    meaning="A predefined name evaluates to another type than the specification gives it. It is read as if absent.",
    advice="Nothing, unless the value is missed.",
    specification="ACPI 6.5, section 5.6.8 and table 5.164",
)
CUT_OFF: Final = rule(
    "aml.interpreter-stopped",
    Severity.WARNING,
    title="the interpreter was stopped",
    meaning="acpiexec ran into a limit of time, memory or output, or crashed, before everything was evaluated. What "
    "was evaluated before is kept; the rest was tried again without initialisation methods.",
    advice="Look which object it was; AML that never ends also hangs an operating system.",
    specification="limits of dom0kit: 28 s, 160 MiB of memory, 16 MiB of output",
)
MIXED: Final = rule(
    "aml.mixed-config-space",
    Severity.INFO,
    title="an object reads the same offset of several functions",
    meaning="The interpreter has one config space for all functions, and this object reads the same offset of more "
    "than one, where they differ. It was evaluated once with each one's bytes, and the answers differ.",
    advice="Evaluate the object on the machine itself where it matters.",
    specification="ACPICA source/tools/acpiexec/aeregion.c",
)
KERNEL_DIFFERS: Final = rule(
    "aml.kernel-differs",
    Severity.INFO,
    title="the kernel's interpreter gives another value",
    meaning="The running kernel evaluated the object as well (--kernel-aml), and its value is another than that of the "
    "offline interpreter, which reads zeros where hardware was not recorded and runs no initialisation on it. The "
    "kernel's value is the one that is used.",
    advice="Nothing; read recordings of this machine with it in mind, for they have the offline value.",
    specification="ACPI 6.5, section 5.5.2.4 (operation regions)",
)
