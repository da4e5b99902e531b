# SPDX-License-Identifier: MIT
"""``dom0kit partition``: which device goes to which domain; suggest, init, check, plan. Nothing is changed by any."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dom0kit.cli import FINE, FOUND, UNUSABLE, Unusable, UsageError, closest, emit
from dom0kit.cli.arguments import Parser, is_recorded, open_machine

if TYPE_CHECKING:
    import argparse

    from dom0kit.partition.document import Document
    from dom0kit.partition.ground import Ground
    from dom0kit.partition.plan import PartitionPlan
    from dom0kit.plan import Backend
    from dom0kit.platform import Platform

_VERBS = {
    "suggest": "what can be given away, in which units, and what stands in the way of the rest",
    "init": "print a commented partition.toml for this machine",
    "check": "hold a partition.toml against a machine: every conflict, with two ways out",
    "plan": "make the plan of a partition.toml; dom0kit apply carries it out",
}
_MOST_BYTES = (4 << 20) + 1


class _Rejected(Exception):
    """The file's mistakes are told already."""


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        parser = Parser("partition", "Which device goes to which domain, decided before anything is touched.")
        parser.epilog = "Verbs: " + "; ".join(f"partition {verb}: {purpose}" for verb, purpose in _VERBS.items()) + "."
        parser.parse_args(arguments)
        raise UsageError(f"partition: which verb? {', '.join(_VERBS)} (dom0kit partition --help)")
    verb, *rest = arguments
    if verb not in _VERBS:
        raise UsageError(f"partition: there is no verb {verb!r}{closest(verb, _VERBS)} (dom0kit partition --help)")
    try:
        return {"suggest": _suggest, "init": _init, "check": _check, "plan": _plan}[verb](rest)
    except _Rejected:
        return UNUSABLE


def _parser(verb: str, description: str, *, formats: bool = True) -> Parser:
    parser = Parser(f"partition {verb}", description)
    parser.add_source()
    parser.add_argument(
        "--backend",
        choices=("linux", "xen", "hv_core", "loopback", "library"),
        help="what runs the domains; default: what the machine runs on",
    )
    if formats:
        parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    return parser


def _suggest(arguments: list[str]) -> int:
    parser = _parser(
        "suggest",
        "What can be given to domains, each with all that must go with it, and what stands in the way of the rest. "
        "With --want: an assignment that meets all wants (exit status 0), or what is in the way of one (1).",
    )
    parser.add_argument(
        "--want",
        action="append",
        metavar="WANT",
        help="such as 'domain=net: class=network count=2'; also id=, sbdf=, path=, driver=, serial=; may be repeated",
    )
    parser.add_argument("-o", dest="output", metavar="FILE", help="with --want: write the partition.toml there")
    parser.add_argument(
        "--trusted", action="store_true", help="to domains that may do without an IOMMU: require_iommu = false"
    )
    options = parser.parse_args(arguments)
    parser.check_source(options)
    if options.output is not None and not options.want:
        parser.error("-o writes what --want has found")
    from dom0kit.cli.text import partition as text
    from dom0kit.cli.text.layout import show
    from dom0kit.partition.model import Policy
    from dom0kit.partition.suggest import Want, meet, suggest
    from dom0kit.serial import encode

    try:
        wants = [Want.parse(each) for each in options.want or ()]
    except ValueError as error:
        parser.error(str(error))
    ground = _ground(options)
    policy = Policy(require_iommu=not options.trusted)
    if not wants:
        suggestion = suggest(ground, policy)
        if options.format == "json":
            emit(encode(suggestion, indent=2) + b"\n")
        else:
            show(*text.suggestion(ground, suggestion))
        return FINE
    answer = meet(ground, wants, policy)
    if answer.domains and options.output is not None:
        from dom0kit.partition.starting import partition_text

        made = partition_text(ground, answer.domains, require_iommu=not options.trusted)
        _write(options.output, made.encode())
    if options.format == "json":
        emit(encode(answer, indent=2) + b"\n")
    else:
        show(*text.answer(ground, answer, written=options.output))
    return FINE if answer.domains else FOUND


def _init(arguments: list[str]) -> int:
    parser = _parser(
        "init", "Print a commented partition.toml that names everything that can be given away.", formats=False
    )
    options = parser.parse_args(arguments)
    parser.check_source(options)
    from dom0kit.partition.starting import starting_point
    from dom0kit.partition.suggest import suggest

    ground = _ground(options)
    return emit(starting_point(ground, suggest(ground)))


def _check(arguments: list[str]) -> int:
    parser = _parser(
        "check",
        "Every conflict of a partition with a machine, each with the rule, the evidence and two ways out. Exit status "
        "1 where there are errors or warnings.",
    )
    parser.add_argument("file", metavar="FILE", help="a partition.toml; -: standard input")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    document = _document(options.file)
    ground = _ground(options, document)
    from dom0kit.finding import Severity
    from dom0kit.partition.check import check

    verdict = check(ground, document)
    if options.format == "json":
        from dom0kit.serial import encode

        emit(encode(verdict, indent=2) + b"\n")
    else:
        from dom0kit.cli.text import partition as text
        from dom0kit.cli.text.layout import show

        show(*text.verdict(ground, verdict, options.file))
    return FOUND if any(each.finding.severity is not Severity.INFO for each in verdict.conflicts) else FINE


def _plan(arguments: list[str]) -> int:
    parser = _parser(
        "plan",
        "The plan of a partition: ordered operations, each with its inverse, and the facts they rely upon. Exit status "
        "1 where conflicts keep it from being made.",
    )
    parser.add_argument("file", metavar="FILE", help="a partition.toml; -: standard input")
    parser.add_argument("-o", dest="output", metavar="FILE", help="write the plan there, for dom0kit apply")
    parser.add_argument("--explain", action="store_true", help="with every fact, and how each operation is undone")
    parser.add_argument("--xl", metavar="DIR", help="under Xen: write there, for each domain, a fragment for xl")
    options = parser.parse_args(arguments)
    parser.check_source(options)
    document = _document(options.file)
    ground = _ground(options, document)
    from dom0kit.cli.text import partition as text
    from dom0kit.cli.text.layout import show
    from dom0kit.partition.check import case_of
    from dom0kit.partition.plan import NotPlanned, plan_partition
    from dom0kit.serial import encode

    try:
        made = plan_partition(case_of(ground, document))
    except NotPlanned as refused:
        if refused.verdict is None:
            raise Unusable(str(refused)) from refused
        if options.format == "json":
            emit(encode(refused.verdict, indent=2) + b"\n")
        else:
            show(*text.verdict(ground, refused.verdict, options.file))
        return FOUND
    if options.output is not None:
        _write(options.output, encode(made.plan, indent=2) + b"\n")
    if options.xl is not None:
        _write_fragments(parser, options.xl, made)
    if options.format == "json":
        emit(encode(made.plan, indent=2) + b"\n")
    else:
        show(*text.plan(made, written=options.output, explain=options.explain))
    return FINE


def _write_fragments(parser: Parser, folder: str, made: PartitionPlan) -> None:
    import os

    if not made.fragments:
        parser.error("--xl is for plans of Xen")
    for fragment in made.fragments:
        _write(os.path.join(folder, f"{fragment.domain}.cfg"), fragment.text.encode())


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}") from error


def _document(path: str) -> Document:
    from dom0kit.partition.document import Mistakes, read

    try:
        if path == "-":
            data = sys.stdin.buffer.read(_MOST_BYTES)
        else:
            with open(path, "rb") as file:
                data = file.read(_MOST_BYTES)
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
    try:
        return read(data)
    except Mistakes as found:
        for place, sentence in found.mistakes:
            print(f"{path}:{place.line}:{place.column}: {sentence}", file=sys.stderr)
        raise _Rejected from found


def _ground(options: argparse.Namespace, document: Document | None = None) -> Ground:
    """The machine, with what only the running kernel knows where it is this one."""
    from dom0kit.cli.progress import Progress
    from dom0kit.observation import observe
    from dom0kit.partition.ground import Ground
    from dom0kit.partition.identity import keyed_serials
    from dom0kit.source.needs import needs

    source = open_machine(options)
    with Progress() as progress:
        platform = observe(source, progress=progress)
    if not platform.functions:
        raise Unusable(f"{platform.origin.name} shows no PCI functions: there is nothing to give away")
    return Ground(
        platform,
        serials=keyed_serials(source),
        needs=None if is_recorded(options) else needs(),
        backend=_backend(options, platform, document),
    )


def _backend(options: argparse.Namespace, platform: Platform, document: Document | None) -> Backend:
    """What is asked for; else what the kernel module finds here, a model that the file names, or the machine's."""
    from dom0kit.plan import Backend

    if options.backend is not None:
        return Backend(options.backend)
    if platform.xen is not None:
        return Backend.XEN
    if not is_recorded(options):
        from dom0kit.abi import BackendKind
        from dom0kit.hypercall.kernel_module import KernelModule, ModuleMissing

        try:
            with KernelModule() as module:
                if module.backend is BackendKind.HV_CORE:
                    return Backend.HV_CORE
        except ModuleMissing:
            pass
    named = {domain.backend.backend for domain in document.partition.domain if domain.backend} if document else set()
    if len(named) == 1 and (chosen := named.pop()).is_core:
        return chosen
    return Backend.LINUX
