# SPDX-License-Identifier: MIT
"""``dom0kit service``: what systemd starts at boot; its status, and its reload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dom0kit.cli import FINE, FOUND, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser

if TYPE_CHECKING:
    from typing import Any

    from dom0kit.service.engine import Engine
    from dom0kit.service.metrics import Numbers
    from dom0kit.service.settings import Settings

_VERBS = {
    "run": "keep the machine as /etc/dom0kit says, until SIGTERM (systemd runs this)",
    "status": "what the running service has done, and what is wrong",
    "reload": "have it read /etc/dom0kit and the machine again",
}


def run(arguments: list[str]) -> int:
    if arguments[:1] in (["--help"], ["-h"]):
        lines = "".join(f"  {verb:<8} {purpose}\n" for verb, purpose in _VERBS.items())
        return emit(f"usage: dom0kit service VERB [ARGS]    (dom0kit service VERB --help: what it takes)\n\n{lines}")
    if not arguments:
        raise UsageError("service: which verb? (dom0kit service --help)")
    verb, *rest = arguments
    if verb not in _VERBS:
        raise UsageError(f"service: there is no verb {verb!r}{closest(verb, _VERBS)} (dom0kit service --help)")
    return {"run": _run, "status": _status, "reload": _reload}[verb](rest)


def _run(arguments: list[str]) -> int:
    parser = Parser(
        "service run",
        "Observe the machine, hand shared_info over, apply the plans of /etc/dom0kit that are not applied yet, then "
        "follow hotplug and answer clients. SIGHUP reads everything again. Exit status 1: the machine cannot be made "
        "as /etc/dom0kit wants it, and is as it was.",
    )
    parser.add_argument("--config", default="/etc/dom0kit", metavar="DIR", help="default: /etc/dom0kit")
    options = parser.parse_args(arguments)
    import gc
    from threading import Thread

    from dom0kit.hotplug.monitor import Monitor, MonitorMissing
    from dom0kit.hypercall.journal import FOLDER
    from dom0kit.hypercall.kernel_module import ModuleMissing
    from dom0kit.service.engine import Engine, NotStarted
    from dom0kit.service.machine import this_machine
    from dom0kit.service.settings import BadSettings, read_settings
    from dom0kit.service.systemd import ERROR, Journal, Notifier, activated_sockets

    journal, notifier = Journal(), Notifier()

    def settings() -> Settings:
        return read_settings(options.config)

    def refused(why: object, status: int) -> int:
        journal.log(ERROR, str(why), event="not-started")
        notifier.status(str(why))
        return status

    monitor = None
    try:
        monitor = Monitor()
    except MonitorMissing as missing:
        journal.log(ERROR, f"hotplug is not followed: {missing}", event="no-monitor")
    try:
        engine = Engine(this_machine(FOLDER), settings(), journal)
        writer = _Writer(engine)
        if engine.settings.metrics.textfile is not None:
            writer.prepare()  # what is called on the way counts
        notifier.status("observing the machine")
        loading = Thread(target=_load, daemon=True)  # while the AML interpreter works
        loading.start()
        engine.start()
        loading.join()
        from dom0kit.service.daemon import Daemon
        from dom0kit.service.server import SOCKET, listen

        listening = activated_sockets() or [listen(SOCKET)]
    except (BadSettings, NotStarted) as refusal:
        return refused(refusal, FOUND)
    except (ModuleMissing, OSError) as error:
        raise Unusable(f"the service cannot run: {error}") from error
    daemon = Daemon(engine, monitor, settings, FOLDER, journal=journal, notifier=notifier, write_metrics=writer)
    gc.freeze()
    gc.enable()  # it lives long; what it starts with stays
    import asyncio

    asyncio.run(daemon.run(listening))
    return FINE


class _Writer:
    """Writes metrics; what that takes is imported where they are on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._numbers: Numbers | None = None

    def prepare(self) -> Numbers:
        from dom0kit.service.metrics import Numbers, metered

        if self._numbers is None:
            self._numbers = Numbers(self._engine, metered())
        return self._numbers

    def __call__(self, path: str) -> None:
        from dom0kit.service.metrics import write

        write(path, self.prepare())


def _load() -> None:
    """Imports what the service needs once it has started."""
    import dom0kit.service.daemon
    import dom0kit.service.server  # noqa: F401


def _status(arguments: list[str]) -> int:
    parser = Parser("service status", "What the running service says. Exit status 1 where something is wrong.")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    status, findings = _asked("GetStatus")["status"], _asked("GetFindings")["findings"]
    result = FINE if status["ready"] and not status["errors"] + status["warnings"] else FOUND
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode({**status, "findings": findings}, indent=2) + b"\n")
        return result
    from dom0kit.cli.text.layout import Section, columns, line, show

    title = columns(
        [
            ("machine", status["machine"]),
            ("hypervisor", status["hypervisor"] + (", shared_info handed over" if status["handed_over"] else "")),
            ("holds", f"{status['functions']} functions, {status['ioapics']} IOAPICs ({status['platform']})"),
            ("hotplug", f"{status['events']} events since the service started"),
            ("state", "as /etc/dom0kit says" if status["ready"] else "not as /etc/dom0kit says: see its journal"),
        ]
    )
    adopted = {True: " (adopted)", False: ""}
    plans = [line(f"{plan['name']}: {plan['title']}{adopted[plan['adopted']]}") for plan in status["plans"]]
    wrong = [
        line(f"{each['severity']}  {each['where']}  {each['message']}  [{each['rule']}]")
        for each in findings
        if each["severity"] != "info"
    ]
    sections = [Section(name, lines) for name, lines in (("plans", plans), ("findings", wrong)) if lines]
    show(title, sections)
    return result


def _reload(arguments: list[str]) -> int:
    parser = Parser("service reload", "Exit status 1: it was refused; the reason is said. For root.")
    parser.parse_args(arguments)
    from dom0kit.cli import refuse
    from dom0kit.service.client import ServiceRefused

    try:
        _asked("Reload")
    except ServiceRefused as refusal:
        return refuse(FOUND, f"not reloaded: {refusal}")
    return FINE


def _asked(method: str) -> dict[str, Any]:
    from dom0kit.service.client import ServiceMissing, asked

    try:
        return asked(method)
    except ServiceMissing as missing:
        raise Unusable(str(missing)) from missing
