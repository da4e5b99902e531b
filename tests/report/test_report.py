# SPDX-License-Identifier: MIT
"""The HTML report: well formed, complete, harmless, and of itself alone."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dom0kit.check.rules import findings
from dom0kit.cli import FINE, UNUSABLE, USAGE, main
from dom0kit.observation import observe
from dom0kit.platform import Platform
from dom0kit.report.markup import el
from dom0kit.report.page import page
from dom0kit.source.in_memory import MemorySource
from dom0kit.source.interface import RawFunction, SourceKind
from dom0kit.source.recognise import open_source
from tests.check.machine import File, express, fn, port, recording

NAMES = ("qemu-q35", "qemu-i440fx", "synthetic-x2apic", "synthetic-amd", "firecracker", "qemu-microvm")


class Reader(HTMLParser):
    """Holds a page against what every page must keep: closed elements, ids once, labels, links that lead somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self._pieces.append(data)


def read(text: str) -> Reader:
    """The page, with all that must hold for every one."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert all(link.startswith("#") for link in reader.links)
    assert not {name for _, name, _ in reader.attributes if name == "src" or name.startswith("on")}
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in text
    assert "default-src &#x27;none&#x27;" in text
    assert "http://" not in text
    assert "url(" not in text
    assert "fetch(" not in script
    return reader


def platform_of(*parts: RawFunction | File) -> Platform:
    functions = [part for part in parts if isinstance(part, RawFunction)]
    files = {path: text.encode() for part in parts if isinstance(part, File) for path, text in part.items()}
    source = MemorySource(
        "made-up", SourceKind.RECORDING, functions=sorted(functions, key=lambda of: of.sbdf), files=files
    )
    return observe(source, aml=False)


@pytest.mark.parametrize("name", NAMES)
def test_everything_of_a_machine_is_on_its_page(name: str) -> None:
    platform = observe(open_source(recording(name)))
    told = findings(platform)
    text = page(platform, told)
    assert text == page(platform, told)
    reader = read(text)
    assert {f"f-{function.sbdf}" for function in platform.functions} <= set(reader.ids)
    assert reader.ids.count("findings") == 1
    shown = reader.text
    assert all(finding.message in shown and finding.rule in shown for finding in told)
    assert all(f"GSI {line.gsi}" in shown for line in platform.lines)
    assert all(f"group {group.number}" in shown for group in platform.groups)
    there = set(reader.ids)
    assert {link[1:] for link in reader.links} <= there


def test_sections_that_would_be_empty_are_left_out() -> None:
    platform = platform_of()
    reader = read(page(platform, findings(platform)))
    assert {"machine", "findings"} <= set(reader.ids)
    assert not {"pci", "interrupts", "isolation", "addresses"} & set(reader.ids)
    assert "There are none." in reader.text


def test_what_a_machine_says_is_text() -> None:
    evil = "<script>alert(1)</script>\x1b[2J\"'&"
    platform = platform_of(
        fn("00:03.0", attributes={"driver": evil}), File({"sys/class/dmi/id/product_name": f"{evil}\n"})
    )
    text = page(platform, findings(platform))
    assert text.count("<script") == 1
    assert "\x1b" not in text
    reader = read(text)
    assert "<script>alert(1)</script>" in reader.text
    assert "\\x1b[2J" in reader.text


def test_an_element_escapes_what_is_in_it() -> None:
    assert el("p", "a < b", el("b", "&"), title='"', class_="x", hidden=False, open=True, data_n=3) == (
        '<p title="&quot;" class="x" open data-n="3">a &lt; b<b>&amp;</b></p>'
    )
    assert el("input", type="search") == '<input type="search">'


def large() -> Platform:
    """4,096 functions: 16 ports with 255 functions behind each."""
    functions = []
    for number in range(16):
        bus = number + 1
        functions.append(port(f"00:{number:02x}.0", (bus, bus)))
        for devfn in range(255):
            functions.append(fn(f"{bus:02x}:{devfn >> 3:02x}.{devfn & 7}", {0x0E: b"\x80"}, standard=[express()]))
    return platform_of(*functions)


@pytest.mark.slow
def test_a_large_machine_stays_small() -> None:
    platform = large()
    assert len(platform.functions) == 4096
    text = page(platform, findings(platform))
    read(text)
    assert len(text) < 1500 * len(platform.functions)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "machine.html"
    command = ["report", "--from", str(recording("qemu-q35")), "--no-aml", "-o"]
    assert main([*command, str(place)]) == FINE
    assert capsys.readouterr().out == f"{place}: {place.stat().st_size} bytes, 25 functions\n"
    assert main([*command, str(place)]) == UNUSABLE
    assert "--force" in capsys.readouterr().err
    assert main([*command, str(place), "--force"]) == FINE
    capsys.readouterr()
    assert main([*command, "-"]) == FINE
    assert capsys.readouterr().out == place.read_text()
    assert main([*command, str(tmp_path / "none" / "x.html")]) == UNUSABLE
    assert main(["report"]) == USAGE


PARTITION = """format = 1
[[domain]]
name = "storage"
[[domain.device]]
sbdf = "0000:01:00.0"
"""


def test_a_partition_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    partition = tmp_path / "partition.toml"
    partition.write_text(PARTITION)
    command = ["report", "--from", str(recording("qemu-q35")), "--no-aml", "-o", "-", "--partition", str(partition)]
    assert main(command) == FINE
    reader = read(capsys.readouterr().out)
    assert reader.text.count("domain storage") == 2
    assert "partition.physical-function" in reader.text
    partition.write_text("format = 1\n[[domains]]\n")
    assert main(command) == UNUSABLE
    said = capsys.readouterr().err
    assert f"{partition}:2:" in said
    assert said.count("\n") == 1


CHROMIUM = shutil.which("chromium")


def in_browser(text: str, tmp_path: Path, script: str, *, size: str = "1280,900") -> str:
    """The title that `script`, run on the page in Chromium, leaves; its policy is replaced to let the script run."""
    place = tmp_path / "page.html"
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    place.write_text(without.replace("</body>", f"<script>{script}</script></body>"))
    done = subprocess.run(
        [
            str(CHROMIUM),
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", f"--window-size={size}"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", place.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert found is not None, done.stderr[-2000:]
    return found[1]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian package chromium)")
def test_filters_work_in_a_browser(tmp_path: Path) -> None:
    platform = observe(open_source(recording("qemu-q35")))
    text = page(platform, findings(platform))
    script = """
      const type = (id, words) => {
        const input = document.getElementById(id); input.value = words; input.dispatchEvent(new Event("input")); };
      const shown = (kind) => [...document.querySelectorAll(kind)].filter((item) => !item.hidden).length;
      const all = shown(".finding");
      type("finding-search", "hot-plug slot 0x07"); type("tree-search", "nvme");
      setTimeout(() => {
        const some = [shown(".finding"), shown(".function"), document.getElementById("tree-count").textContent];
        const box = document.querySelector("#finding-filter input[data-severity=info]");
        box.click();
        document.title = JSON.stringify([all, ...some, shown(".finding")]);
      }, 500);"""
    all_findings = len(findings(platform))
    shown = in_browser(text, tmp_path, script)
    assert shown.startswith(f"[{all_findings},")
    numbers = [int(of) for of in re.findall(r"\d+", shown)]
    assert 0 < numbers[1] < all_findings
    assert 0 < numbers[2] < 25
    assert numbers[-1] == 0


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian package chromium)")
def test_a_link_opens_what_it_leads_to(tmp_path: Path) -> None:
    platform = observe(open_source(recording("qemu-q35")))
    script = """
      document.getElementById("tree-close").click();
      location.hash = "#f-0000:04:00.0";
      setTimeout(() => {
        const item = document.getElementById("f-0000:04:00.0");
        let open = true;
        for (let at = item; at; at = at.parentElement) if (at.tagName === "DETAILS" && !at.open) open = false;
        document.title = `${open} ${document.activeElement.id}`;
      }, 500);"""
    assert in_browser(page(platform, findings(platform)), tmp_path, script) == "true f-0000:04:00.0"
