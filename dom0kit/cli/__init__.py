# SPDX-License-Identifier: MIT
"""The command line: one module per verb, none of them imported before it is asked for.

Exit status: 0 fine, 1 findings, differences or refusals, 2 usage, 3 nothing usable; 130 interrupted, 141 nobody reads
the output.
"""

from __future__ import annotations

import sys

import dom0kit

VERBS = {
    "enumerate": "see the whole machine: ACPI, PCI, interrupts, isolation, CPUs, memory, and what is wrong with it",
    "check": "what is wrong with a machine, or with a folder of recorded ones (--corpus), and what to do about it",
    "report": "the machine as one HTML file to look at: tree, interrupt routing, groups, address map, findings",
    "record": "keep everything that enumerate reads in one archive, serial numbers and the like redacted",
    "acpi": "browse the ACPI namespace (tree), evaluate an object (eval PATH)",
    "explain": "what a finding means, which specification says so, what to do",
    "schema": "JSON Schema of the JSON output",
    "diff": "what differs between two recordings, or two plans",
    "hv": "the hypervisor core: simulate it from a recorded machine; what runs below (info, shared-info)",
    "ioapic": "redirection entries: shown (dump), held against what they should be (diff), changed (set)",
    "irq": "the routing table of every GSI and message; a plan for it (plan), vectors (budget, vector)",
    "msi": "the messages of one function: shown (dump), mapped and taken away (map, unmap)",
    "partition": "which device goes to which domain: suggest, init, check, and a plan for it (plan)",
    "hotplug": "what comes and goes: watched and reconciled (watch), slots, simulate, and its policies (check)",
    "apply": "do what a plan says, all of it or nothing; or rehearse it (--dry-run)",
    "rollback": "undo the newest plan that was applied",
    "recover": "undo what was interrupted",
    "status": "which plans are applied",
    "service": "what a machine runs from boot on (run), asked (status) and told (reload)",
    "watch": "what the service sees happen, as it happens",
    "top": "interrupts per second by device and CPU, as they come",
    "trace": "what happens in the kernel, with whose it is: irq, msi, vectors, hotplug, hypercalls, pci-config",
}
"""Every verb and what it is for; the verb's module has the same name and a function `run(arguments) -> status`."""

TRACE = "--trace-hypercalls"

FINE, FOUND, USAGE, UNUSABLE, INTERRUPTED, UNREAD = 0, 1, 2, 3, 130, 141


class UsageError(Exception):
    """The command line makes no sense; the message is one sentence, with the way to the help."""


class Unusable(Exception):
    """There is nothing to work on; the message is one sentence that names it and a way out."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command line (by default the process's own) and return its exit status; never raises."""
    given = arguments
    if given is None:
        import atexit
        import gc

        given = sys.argv[1:]
        # A short life, and values without cycles: collecting costs a third of it, most at its end, and frees nothing.
        gc.disable()
        atexit.register(gc.freeze)
    try:
        return _run(given)
    except UsageError as error:
        return refuse(USAGE, str(error))
    except Unusable as error:
        return refuse(UNUSABLE, str(error))
    except SystemExit as end:  # argparse, after --help
        return int(end.code or FINE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_output()
        return UNREAD
    except Exception as error:
        return _report_bug(error)


def _import_lightly() -> None:
    """Import the libraries every verb needs without what they import and can do without, a tenth of the time:

    typing_extensions and, for it, inspect and ast (typing has what msgspec takes from it); OpenSSL (Python has what
    hashlib takes from it); textwrap (for JSON Schema); platform (uuid, which msgspec knows how to write, asks for the
    system's name).
    """
    from dom0kit.imports import importing, stand_in, system_name

    absent = {"typing_extensions": None, "_hashlib": None}
    with importing({**absent, "textwrap": stand_in("textwrap"), "platform": system_name()}):
        import hashlib  # noqa: F401

        import msgspec  # noqa: F401


def _run(given: list[str]) -> int:
    """One command line; with --trace-hypercalls FILE anywhere in it, whatever hypervisors it opens are traced."""
    if TRACE not in given:
        return _run_verb(given)
    at = given.index(TRACE)
    if len(given) == at + 1:
        raise UsageError(f"{TRACE} needs a file to write (dom0kit --help)")
    _import_lightly()
    from dom0kit.hypercall.interface import Hypervisor
    from dom0kit.hypercall.trace import TraceWriter

    try:
        trace = TraceWriter(given[at + 1])
    except OSError as error:
        raise Unusable(f"{TRACE}: {given[at + 1]} cannot be written: {error.strerror}") from error
    with trace:
        Hypervisor.listener = trace
        try:
            return _run_verb(given[:at] + given[at + 2 :])
        finally:
            Hypervisor.listener = None


def _run_verb(given: list[str]) -> int:
    if not given:
        raise UsageError("which verb? (dom0kit --help lists them)")
    verb, *rest = given
    if verb in ("--version", "-V"):
        return emit(f"dom0kit {dom0kit.__version__}\n")
    if verb in ("--help", "-h", "help"):
        return emit(_help())
    if verb not in VERBS:
        raise UsageError(f"there is no verb {verb!r}{closest(verb, VERBS)} (dom0kit --help lists them)")
    _import_lightly()
    from importlib import import_module

    status: int = import_module(f"dom0kit.cli.{verb}").run(rest)
    return status


def emit(text: str | bytes) -> int:
    """Write `text` to standard output, all of it and now; the status is `FINE`. Unusable where it cannot be written."""
    data = memoryview(text if isinstance(text, bytes) else text.encode(sys.stdout.encoding, "backslashreplace"))
    try:
        sys.stdout.flush()
        while data:  # with PYTHONUNBUFFERED a write may take only a part
            data = data[sys.stdout.buffer.write(data) :]
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _abandon_output()
        raise Unusable(f"the output cannot be written: {error.strerror}") from error
    return FINE


def closest(word: str, known: dict[str, str] | list[str]) -> str:
    """``, did you mean 'x'?`` for the known word that looks most like `word`, else nothing."""
    from difflib import get_close_matches

    matches = get_close_matches(word, list(known), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""


def _help() -> str:
    verbs = "\n".join(f"  {verb:<10} {purpose}" for verb, purpose in VERBS.items())
    return (
        "usage: dom0kit VERB [ARGS]       (dom0kit VERB --help: what it takes)\n\n"
        f"{verbs}\n\n"
        f"{TRACE} FILE, with any verb: every hypercall as a line of JSON (dom0kit hv replay)\n\n"
        "Exit status: 0 fine, 1 findings, differences or refusals, 2 usage, 3 nothing usable.\n"
    )


def refuse(status: int, sentence: str) -> int:
    """Say one sentence on standard error; the status is the given one."""
    print(f"dom0kit: {sentence}", file=sys.stderr)
    return status


def _abandon_output() -> None:
    """Let nothing more be written to an output that takes nothing, not even when Python ends."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_bug(error: Exception) -> int:
    import os

    if os.environ.get("DOM0KIT_DEBUG"):
        import traceback

        traceback.print_exc()
    kind, text = type(error).__name__, " ".join(str(error).split())
    return refuse(UNUSABLE, f"this is a bug: {kind}: {text} (run again with DOM0KIT_DEBUG=1 for the traceback)")
