# SPDX-License-Identifier: MIT
"""Manual pages and completions, all from what the program says of itself: ``manual.py FOLDER`` (as /usr/share).

A page a verb, ``dom0kit-VERB.8``, with the text of ``--help`` of the verb and of each verb below it; one for dom0kit
itself; one file for bash, one for zsh, that know verbs, verbs below them, and options.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

os.environ["COLUMNS"] = "80"

from dom0kit import __version__
from dom0kit.cli import VERBS

_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)")
_BELOW = re.compile(r"^  ([a-z-]+) +[a-z]", re.MULTILINE)


def help_of(*words: str) -> str:
    """What --help says."""
    line = [sys.executable, "-m", "dom0kit", *words, "--help"]
    return subprocess.run(line, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout


def below(verb: str, text: str) -> list[str]:
    """The verbs below a verb, by its help: a list of its own, or an epilog."""
    if re.match(rf"usage: dom0kit {verb} [A-Z]+ \[ARGS\]", text):
        return _BELOW.findall(text)
    epilog = " ".join(text.partition("Verbs:")[2].split())
    return re.findall(rf"\b{verb} ([a-z-]+):", epilog)


def page(name: str, purpose: str, texts: dict[str, str]) -> str:
    """A manual page, in the man macros of groff_man(7)."""
    title = name.upper().replace("-", "\\-")
    dashed = name.replace("-", "\\-")
    parts = [f'.TH {title} 8 "" "dom0kit {__version__}"', ".SH NAME", f"{dashed} \\- {_roff(purpose)}"]
    for heading, text in texts.items():
        parts += [f".SH {_roff(heading).upper()}", ".nf", *map(_roff, text.rstrip().splitlines()), ".fi"]
    return "\n".join(parts) + "\n"


def _roff(text: str) -> str:
    """One line of text as roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def bash(known: dict[str, tuple[list[str], list[str]]]) -> str:
    """A completion for bash: verbs, then verbs below them and options, then files."""
    cases = "".join(
        f'        {verb}) words="{" ".join((*inner, *options))}" ;;\n' for verb, (inner, options) in known.items()
    )
    return (
        "# dom0kit(8), for bash\n"
        "_dom0kit() {\n"
        '    local current="${COMP_WORDS[COMP_CWORD]}" words=""\n'
        f'    if [ "$COMP_CWORD" = 1 ]; then words="{" ".join(known)}"; else case "${{COMP_WORDS[1]}}" in\n'
        f"{cases}    esac; fi\n"
        '    COMPREPLY=($(compgen -W "$words" -- "$current"))\n'
        "}\n"
        "complete -o default -o bashdefault -F _dom0kit dom0kit\n"
    )


def zsh(known: dict[str, tuple[list[str], list[str]]]) -> str:
    """The same for zsh."""
    verbs = "".join(f"        {_quoted(f'{verb}:{VERBS[verb]}')}\n" for verb in known)
    cases = "".join(
        f"        {verb}) compadd -- {' '.join((*inner, *options))}; _files ;;\n"
        for verb, (inner, options) in known.items()
    )
    return (
        "#compdef dom0kit\n"
        "# dom0kit(8), for zsh\n"
        "_dom0kit() {\n    local -a verbs\n"
        f"    verbs=(\n{verbs}    )\n"
        '    if (( CURRENT == 2 )); then _describe verb verbs; else case "$words[2]" in\n'
        f"{cases}    esac; fi\n}}\n"
        '_dom0kit "$@"\n'
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def write(folder: Path) -> None:
    """Everything, below a folder."""
    known: dict[str, tuple[list[str], list[str]]] = {}
    pages = folder / "man" / "man8"
    pages.mkdir(parents=True, exist_ok=True)
    for verb, purpose in VERBS.items():
        texts = {"synopsis and options": help_of(verb)}
        inner = below(verb, texts["synopsis and options"])
        texts |= {f"{verb} {each}": help_of(verb, each) for each in inner}
        options = sorted(set(_OPTION.findall("".join(texts.values()))))
        known[verb] = inner, options
        (pages / f"dom0kit-{verb}.8").write_text(page(f"dom0kit-{verb}", purpose, texts))
    texts = {"synopsis and verbs": help_of(), "see also": ", ".join(f"dom0kit-{verb}(8)" for verb in VERBS)}
    (pages / "dom0kit.8").write_text(page("dom0kit", "the dom0 half of a small hypervisor", texts))
    for path, text in (
        (folder / "bash-completion" / "completions" / "dom0kit", bash(known)),
        (folder / "zsh" / "vendor-completions" / "_dom0kit", zsh(known)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
