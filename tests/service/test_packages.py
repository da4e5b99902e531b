# SPDX-License-Identifier: MIT
"""What is in the Debian packages: the module builds from its package's source, the tools run from theirs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dom0kit.cli import VERBS
from tests.guest import module
from tests.guest.images import kernel_version
from tests.service import tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(tree.missing() is not None, reason=tree.missing() or ""),
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each package's files, below a folder."""
    found = {}
    for name, deb in tree.packages().items():
        found[name] = tmp_path_factory.mktemp(name)
        subprocess.run(["dpkg-deb", "-x", str(deb), str(found[name])], check=True)
    return found


def test_every_verb_has_its_page_and_completion(unpacked: dict[str, Path]) -> None:
    share = unpacked["dom0kit"] / "usr/share"
    pages = {path.name.removesuffix(".8.gz") for path in (share / "man/man8").iterdir()}
    assert pages == {"dom0kit", *(f"dom0kit-{verb}" for verb in VERBS)}
    completion = share / "bash-completion/completions/dom0kit"
    said = subprocess.run(
        ["bash", "-c", f'. {completion}; COMP_WORDS=(dom0kit ""); COMP_CWORD=1; _dom0kit; echo "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == list(VERBS)


def test_the_tool_runs_from_its_package(unpacked: dict[str, Path]) -> None:
    library = unpacked["dom0kit"] / "usr/lib/dom0kit"
    program = f"import sys; sys.path.insert(0, {str(library)!r}); from dom0kit.cli import main; sys.exit(main())"
    recording = library / "dom0kit/recordings/qemu-q35.d0k"
    for arguments in (["hv", "simulate", "--from", str(recording)], ["service", "--help"], ["schema"]):
        said = subprocess.run(
            ["/usr/bin/python3", "-I", "-c", program, *arguments], capture_output=True, text=True, check=False
        )
        assert said.returncode in (0, 1), said.stderr
        assert not said.stderr


def test_units_are_sound(unpacked: dict[str, Path]) -> None:
    units = unpacked["dom0kit"] / "lib/systemd/system"
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(units / "dom0kit.service")], capture_output=True, text=True
    )
    wrong = [line for line in said.stderr.splitlines() if "dom0kit" in line and "not executable" not in line]
    assert wrong == []


@pytest.mark.skipif(module.missing() is not None, reason=module.missing() or "")
@pytest.mark.skipif(not Path("/usr/sbin/dkms").exists(), reason="needs dkms (dh-dkms brings it)")
def test_the_module_builds_from_its_package(unpacked: dict[str, Path], tmp_path: Path) -> None:
    sources = unpacked["dom0kit-dkms"] / "usr/src"
    kernel = kernel_version()
    assert kernel is not None
    line = ["dkms", "--dkmstree", str(tmp_path), "--sourcetree", str(sources), "-k", kernel]
    for step in ("add", "build"):
        said = subprocess.run([*line, step, "dom0kit/0.1.0"], capture_output=True, text=True)
        assert said.returncode == 0, said.stdout + said.stderr
    (built,) = tmp_path.glob(f"dom0kit/0.1.0/{kernel}/*/module/dom0kit.ko*")
    version = subprocess.run(["/sbin/modinfo", "-F", "version", str(built)], capture_output=True, text=True, check=True)
    assert version.stdout.strip() == "0.1.0"


def test_the_core_is_a_multiboot_image(unpacked: dict[str, Path]) -> None:
    image = (unpacked["hv-core"] / "boot/hv_core.elf").read_bytes()
    assert image[:4] == b"\x7fELF"
    assert (0x1BADB002).to_bytes(4, "little") in image[:8192]
