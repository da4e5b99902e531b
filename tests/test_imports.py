# SPDX-License-Identifier: MIT
"""Libraries imported without what they import: stand-ins work as the real thing, and nothing of it stays behind."""

from __future__ import annotations

import hmac
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import dom0kit
from dom0kit.imports import importing, stand_in, system_name

NAME = "dom0kit_tests_late"
RECORDING = Path(dom0kit.__file__).parent / "recordings" / "qemu-q35.d0k"


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that nobody has imported; its name."""
    (tmp_path / f"{NAME}.py").write_text("answer = 42\nother = 'real'\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield NAME
    sys.modules.pop(NAME, None)


def test_a_stand_in_imports_the_real_module_when_it_must(late: str) -> None:
    module = stand_in(late, other="known")
    assert module.__name__ == late
    assert module.other == "known"
    assert late not in sys.modules
    assert module.answer == 42
    assert sys.modules[late].other == "real"
    with pytest.raises(AttributeError):
        _ = module.question
    with pytest.raises(AttributeError):
        _ = module.__path__


def test_while_it_stands_in_it_is_what_is_imported(late: str) -> None:
    module = stand_in(late, other="known")
    with importing({late: module}):
        assert import_module(late) is module
    assert late not in sys.modules
    assert import_module(late) is not module


def test_asked_while_it_stands_in_it_makes_way(late: str) -> None:
    module = stand_in(late)
    with importing({late: module}):
        assert module.answer == 42
        assert sys.modules[late] is not module
    assert sys.modules[late].answer == 42


def test_from_a_stand_in_a_name_can_be_imported(late: str) -> None:
    scope: dict[str, object] = {}
    with importing({late: stand_in(late)}):
        exec(f"from {late} import answer", scope)
    assert scope["answer"] == 42


def test_what_is_none_cannot_be_imported_for_a_while(late: str) -> None:
    with importing({late: None}), pytest.raises(ImportError):
        import_module(late)
    assert import_module(late).answer == 42


def test_what_is_there_already_stays(late: str) -> None:
    real = import_module(late)
    for instead in (None, stand_in(late)):
        with importing({late: instead}):
            assert import_module(late) is real
        assert sys.modules[late] is real


def test_an_error_leaves_nothing_behind(late: str) -> None:
    with pytest.raises(ZeroDivisionError), importing({late: None}):
        raise ZeroDivisionError
    assert late not in sys.modules


def test_the_systems_name_is_platforms() -> None:
    import platform

    assert system_name().system() == platform.system()
    assert system_name().machine() == platform.machine()


def after_main(*arguments: str, report: str) -> object:
    """What `report` gives in a process of its own behind one run of the command, its output thrown away."""
    script = (
        "import gc, json, os, sys\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "from dom0kit.cli import main\n"
        "told = os.dup(1)\n"
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 1)\n"
        "main()\n"
        f"os.write(told, json.dumps({report}).encode())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_a_start_imports_no_more_than_it_needs() -> None:
    """Each of these takes a hundredth of the time of `enumerate --no-aml`, or several."""
    needless = (
        "_hashlib ast dis gettext inspect locale pdb pickle platform rich textwrap threading tomllib traceback "
        "typing_extensions"
    )
    report = f"[name for name in {needless.split()!r} if name in sys.modules]"
    assert after_main("enumerate", "--no-aml", "--from", str(RECORDING), report=report) == []


def test_only_a_process_of_its_own_is_run_without_collecting() -> None:
    assert after_main("--version", report="gc.isenabled()") is False
    from dom0kit.cli import main

    import_module("gc").enable()
    main(["--version"])
    assert import_module("gc").isenabled()


def test_what_was_left_out_is_there_when_it_is_asked_for() -> None:
    report = (
        "[__import__('msgspec').json.schema(int)['type'], __import__('hmac').digest(b'k', b'm', 'sha256').hex()[:8],"
        " __import__('textwrap').dedent(' x'), __import__('platform').system() == os.uname().sysname,"
        " type(__import__('construct').core.pickle.dumps(1)).__name__]"
    )
    assert after_main("enumerate", "--no-aml", "--from", str(RECORDING), report=report) == [
        "integer",
        hmac.digest(b"k", b"m", "sha256").hex()[:8],
        "x",
        True,
        "bytes",
    ]
