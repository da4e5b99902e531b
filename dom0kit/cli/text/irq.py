# SPDX-License-Identifier: MIT
"""The routing table and the budget of vectors, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from dom0kit.cli.text.interrupts import signal
from dom0kit.cli.text.layout import Cell, Line, Section, columns, count, line, ranges
from dom0kit.cli.text.report import findings as finding_lines
from dom0kit.finding import Finding
from dom0kit.interrupt_plan import InterruptPlan, Left
from dom0kit.interrupts import Line as GsiLine
from dom0kit.interrupts import Messages, RoutingTable, Target, User
from dom0kit.ioapic.kernel_view import KernelInterrupt
from dom0kit.ioapic.plan import Difference
from dom0kit.msi.state import InterruptMode
from dom0kit.plan import Plan
from dom0kit.vectors import Budget, CpuBudget, Limited

_SHOWN = 8
"""Messages of a function, and the like, that are shown one by one."""
_CPUS = 16
"""Processors that have a row each."""


def table(name: str, routing: RoutingTable, remarks: Sequence[str]) -> tuple[list[Line], list[Section]]:
    """The title, and a section for GSIs, messages, and what is neither."""
    using = [each for each in routing.messages if each.used]
    idle = len(routing.messages) - len(using)
    requested = sum(bool(each.requested_by) for each in routing.lines)
    shared = sum(len(each.users) > 1 for each in routing.lines)
    title = [
        line(
            (name, "bold"),
            f": {count(len(routing.lines), 'GSI')}, {requested} requested by drivers, {shared} shared; "
            f"{count(sum(each.used for each in using), 'message')} of {count(len(using), 'function')}"
            + (f", {idle} more could use messages" if idle else ""),
        ),
        *(line((remark, "yellow")) for remark in remarks),
    ]
    sections = [
        Section("GSI, IOAPIC.pin, signal, vector@CPU, users", _lines(routing.lines)),
        Section("MSI and MSI-X, vector@CPU", columns([_messages(each) for each in routing.messages])),
        Section("requested, and neither of a known pin nor of a function", columns(_elsewhere(routing.elsewhere))),
    ]
    return title, [section for section in sections if section.lines]


def _lines(lines: Sequence[GsiLine]) -> list[Line]:
    """One row for each GSI and user: what they have in common stands in the first."""
    rows: list[Sequence[Cell]] = []
    for each in lines:
        pin = "no pin" if each.ioapic_pin is None else str(each.ioapic_pin)
        drivers = ", ".join(each.requested_by)
        where = _where(each.target, each.cpu, known=bool(each.requested_by))
        common: list[Cell] = [(f"GSI {each.gsi}", "bold"), pin, signal(each.trigger, each.polarity), where]
        shared = f"{len(each.users)} share it" if len(each.users) > 1 else ""
        notes = "; ".join(filter(None, (f"requested by {drivers}" if drivers else "", shared)))
        for user in each.users:
            rows.append((*common, user.kind.value, user.name, _state(user), (notes, "dim")))
            common, notes = ["", "", "", ""], ""
    return columns(rows)


def _state(user: User) -> str:
    if user.function is None:
        return ""
    return f"{user.driver or 'no driver'}{', by messages' if user.by_message else ''}"


def _where(target: Target | None, cpu: int | None, *, known: bool) -> str:
    """``0x31@2``; ``?`` for what is in use and nobody could read, ``-`` for what nobody uses."""
    if target is None:
        return f"?@{cpu}" if cpu is not None else "?" if known else "-"
    if target.masked and target.vector is not None and target.vector < 0x10:
        return "masked"  # as it came out of reset: nobody has programmed it
    at = ranges(target.cpus) if target.cpus else None if cpu is None else str(cpu)
    if target.remap_index is not None:
        return f"remapped #{target.remap_index}{f'@{at}' if at is not None else ''}"
    if at is None:
        kind = "logical" if target.logical else "APIC"
        at = "?" if target.destination is None else f"{kind} {target.destination:#x}"
    masked = ", masked" if target.masked else ""
    return f"{target.vector or 0:#04x}@{at}{masked}"


def _messages(each: Messages) -> Sequence[Cell]:
    has = ", ".join(filter(None, (f"{each.msix} MSI-X" if each.msix else "", f"{each.msi} MSI" if each.msi else "")))
    if each.used:
        mode = each.mode.value
        capable = each.msix if each.mode is InterruptMode.MSIX else each.msi
        targets: list[str] = []
        if each.targets:
            targets = [_where(target, None, known=True) for target in each.targets[: each.used]]
        elif each.cpus:
            targets = [f"?@{cpu}" for cpu in each.cpus]
        more = f" and {len(targets) - _SHOWN} more" if len(targets) > _SHOWN else ""
        irqs = f"Linux IRQ {ranges(each.irqs)}" if each.irqs else ""
        uses = f"{each.used} of {count(capable, 'message')}"
        return (
            (str(each.function), "bold"),
            mode,
            uses,
            each.driver or "no driver",
            " ".join(targets[:_SHOWN]) + more or "?",
            irqs,
        )
    return (str(each.function), "bold"), "-", f"has {has}", each.driver or "no driver"


def _elsewhere(interrupts: Iterable[KernelInterrupt]) -> list[Sequence[Cell]]:
    return [
        (
            f"Linux IRQ {each.irq}",
            each.chip,
            f"pin {each.hwirq}" if each.is_ioapic and each.hwirq is not None else "",
            f"?@{each.cpu}" if each.cpu is not None else "",
            ", ".join(each.actions),
        )
        for each in interrupts
    ]


# --- the budget -------------------------------------------------------------------------------------------------------


def budget(name: str, found: Budget) -> tuple[list[Line], list[Section]]:
    """What there is and what is needed; then by processor and node; then what to limit."""
    limits = found.limits
    reserved = ", ".join(f"{vector:#04x}" for vector in limits.reserved) or "none"
    boot = f", {len(limits.reserved_on_boot_cpu)} more on the first" if limits.reserved_on_boot_cpu else ""
    verdict: Cell
    if found.fits:
        verdict = ("everything fits", "green")
    else:
        short = found.wanted - sum(len(grant.places) for grant in found.grants)
        verdict = (f"{count(short, 'vector')} too few: {_advice(found)}", "bold red")
    title = columns(
        [
            ("machine", name),
            (
                "vectors",
                f"{limits.total} a CPU by {limits.owner}, {limits.first:#04x} to {limits.last:#04x}, "
                f"less {reserved}{boot}",
            ),
            ("CPUs", _cpus(found)),
            ("interrupts", "remapped" if found.remapped else "not remapped: messages of one MSI need an aligned run"),
            ("in use", _in_use(found)),
            ("needed", f"{found.wanted}, if every function takes all its messages"),
            ("there are", f"{found.capacity} for devices"),
            ("verdict", verdict),
        ]
    )
    sections = [
        Section("CPUs", _by_cpu(found.cpus, sure=not found.unplaced)),
        Section("nodes", _by_node(found)),
        Section("functions to limit", columns([_limited(each) for each in found.limited], right=[2, 4])),
        Section(
            "GSIs without a vector",
            [line(", ".join(f"GSI {gsi}" for gsi in found.lost))] if found.lost else [],
        ),
    ]
    return title, [section for section in sections if section.lines]


def _advice(found: Budget) -> str:
    most = max((each.gets for each in found.limited), default=0)
    functions = count(len(found.limited), "function")
    return f"limit {functions} to {most} messages or fewer, as listed (--format json has each one's places)"


def _cpus(found: Budget) -> str:
    said = count(len(found.cpus), "CPU")
    if found.policy != "spread":
        said += f" by policy {found.policy}"
    if found.unreachable:
        ids = ranges(cpu.apic_id for cpu in found.unreachable)
        said += f"; {len(found.unreachable)} cannot be reached without a remapper (APIC ids {ids})"
    return said


def _in_use(found: Budget) -> str:
    unplaced = f", {found.unplaced} of them on a CPU that is not known" if found.unplaced else ""
    return f"{count(found.used, 'interrupt')}{unplaced}"


def _by_cpu(cpus: Sequence[CpuBudget], *, sure: bool) -> list[Line]:
    """A row each; of many processors, one for all that are alike."""
    alike: dict[tuple[int, int, int, int], list[CpuBudget]] = {}
    for each in cpus:
        alike.setdefault((each.usable, each.reserved, each.used, each.planned), []).append(each)
    groups = [[each] for each in cpus] if len(cpus) <= _CPUS else list(alike.values())
    return columns(
        [
            (
                "CPU",
                "for devices",
                "reserved",
                "used" if sure else "used at least",
                "free" if sure else "free at most",
                "needed",
            ),
            *(
                (
                    ranges(each.cpu.number for each in group),
                    str(group[0].usable),
                    str(group[0].reserved),
                    str(group[0].used),
                    str(group[0].free),
                    str(group[0].planned),
                )
                for group in groups
            ),
        ],
        right=range(1, 6),
    )


def _by_node(found: Budget) -> list[Line]:
    if len(found.nodes) < 2 and all(each.node is None for each in found.nodes):
        return []
    return columns(
        [
            ("node", "CPUs", "for devices", "used", "needed", "wanted by its functions"),
            *(
                (
                    "none" if each.node is None else str(each.node),
                    str(each.cpus),
                    str(each.usable),
                    str(each.used),
                    str(each.planned),
                    str(each.wanted),
                )
                for each in found.nodes
            ),
        ],
        right=range(1, 6),
    )


def _limited(each: Limited) -> Sequence[Cell]:
    return (
        (str(each.function), "bold"),
        each.driver or "no driver",
        f"has {each.wants}",
        "limit to",
        str(each.gets),
        f"uses {each.used} now" if each.used else "",
    )


# --- the plan ---------------------------------------------------------------------------------------------------------


def plan(made: InterruptPlan, remarks: Sequence[str], *, written: str | None) -> tuple[list[Line], list[Section]]:
    """What the plan does, what it leaves alone and why, and who must do with fewer messages."""
    of = made.plan
    title = [
        line(
            (f"plan for {of.machine}", "bold"),
            f": {count(len(of.operations), 'operation')}, {of.dialect.value}, for {of.backend.value}",
            f"; written to {written}" if written is not None else "",
        ),
        *(line((remark, "yellow")) for remark in remarks),
    ]
    sections = [
        Section("operations", _operations(of)),
        Section("relies upon", [line(str(fact)) for fact in of.facts[:_FACTS]] + _more(len(of.facts), _FACTS)),
        Section("functions that get fewer messages than they have", columns([_limited(each) for each in made.limited])),
        Section("left alone", _left(made.left)),
    ]
    return title, [section for section in sections if section.lines]


_FACTS = 12
_ALIKE = 4
"""Of things that are left alone for one reason so many are named."""
_OPERATIONS = 400


def _left(left: Sequence[Left]) -> list[Line]:
    """One row each; of many that are left for one reason, one for all."""
    counts = Counter((each.what.partition(" ")[0] == "GSI", each.why) for each in left)
    rows: list[Sequence[Cell]] = [
        (each.what, each.why) for each in left if counts[each.what.partition(" ")[0] == "GSI", each.why] <= _ALIKE
    ]
    rows += [
        (f"{number} {'GSIs' if gsi else 'functions'}", why) for (gsi, why), number in counts.items() if number > _ALIKE
    ]
    return columns(rows)


def _operations(of: Plan) -> list[Line]:
    rows: list[Sequence[Cell]] = [
        (str(number), str(each), (each.why, "dim")) for number, each in enumerate(of.operations[:_OPERATIONS])
    ]
    return columns(rows, right=[0]) + _more(len(of.operations), _OPERATIONS)


def _more(number: int, shown: int) -> list[Line]:
    return [line((f"and {number - shown} more: --format json has them all", "dim"))] if number > shown else []


# --- differences ------------------------------------------------------------------------------------------------------


def differences(found: Sequence[Difference], entries: int) -> tuple[list[Line], list[Section]]:
    """Those that do harm first, then those that only wait to be set up."""
    harm = [each for each in found if each.harm]
    rest = [each for each in found if not each.harm]
    title = [
        line(
            f"{count(entries, 'redirection entry', 'redirection entries')}: "
            + (f"{len(found)} differ" if found else "all are as they should be")
        )
    ]
    sections = [
        Section("interrupts are lost, never end, or reach nobody", columns([_difference(each) for each in harm])),
        Section("waiting to be set up", columns([_difference(each) for each in rest])),
    ]
    return title, [section for section in sections if section.lines]


def _difference(each: Difference) -> Sequence[Cell]:
    entry = each.entry
    state = "masked" if entry.masked else "unmasked"
    goes = "remapped" if entry.remap_index is not None else f"vector {entry.vector or 0:#04x}"
    now = f"{signal(entry.trigger, entry.polarity)}, {goes}, {state}"
    return (f"GSI {each.gsi}", "bold"), str(each.ioapic_pin), now, each.what


def told(found: Sequence[Finding]) -> list[Section]:
    """Findings, where there are some."""
    return [Section("findings", finding_lines(found))] if found else []
