# SPDX-License-Identifier: MIT
"""``dom0kit record``: everything that enumerate reads, as one archive that can be mailed."""

from __future__ import annotations

from dom0kit.cli import FINE, FOUND, Unusable, emit
from dom0kit.cli.arguments import Parser, open_machine


def run(arguments: list[str]) -> int:
    parser = Parser("record", "Everything that enumerate reads, as one archive, serial numbers and the like redacted.")
    parser.add_argument("-o", dest="output", metavar="FILE", required=True, help="the archive to write (NAME.d0k)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there already")
    parser.add_source(native=False)
    options = parser.parse_args(arguments)
    parser.check_source(options)
    from dom0kit.cli.progress import Progress
    from dom0kit.finding import Severity
    from dom0kit.source.errors import UnwritableRecording
    from dom0kit.source.recording import record

    with Progress() as progress:
        progress("recording")
        try:
            source = open_machine(options)
            written = record(source, options.output, overwrite=options.force)
        except UnwritableRecording as error:
            raise Unusable(f"{str(error).rstrip('.')}; choose another name with -o, or see --force") from error
    redacted = f"{len(written.manifest.redacted)} values redacted" if written.manifest.redacted else "nothing to redact"
    findings = [f"{finding.severity.value}: {finding.message} ({finding.rule})\n" for finding in source.findings]
    emit(f"{written.path}: {written.size} bytes, {redacted}\n{''.join(findings)}")
    return FOUND if any(finding.severity is not Severity.INFO for finding in source.findings) else FINE
