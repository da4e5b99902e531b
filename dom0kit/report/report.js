// SPDX-License-Identifier: MIT
"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const whenTyped = (input, act) => {
    let timer = 0;
    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(act, 100); });
    input.form.addEventListener("submit", (event) => { event.preventDefault(); act(); });
  };

  const findings = [...document.querySelectorAll(".finding")].map((item) =>
    [item, `${item.textContent} ${item.closest(".rule").querySelector("h3").textContent}`.toLowerCase()]);
  const words = find("finding-search");
  if (words) {
    const boxes = [...document.querySelectorAll("#finding-filter input[data-severity]")];
    const filter = () => {
      const on = new Set(boxes.filter((box) => box.checked).map((box) => box.dataset.severity));
      const wanted = words.value.toLowerCase().split(/\s+/);
      let shown = 0;
      for (const [item, text] of findings) {
        item.hidden = !(on.has(item.dataset.severity) && wanted.every((word) => text.includes(word)));
        shown += !item.hidden;
      }
      for (const rule of document.querySelectorAll(".rule")) rule.hidden = !rule.querySelector(".finding:not([hidden])");
      find("finding-count").textContent = `${shown} of ${findings.length} findings`;
    };
    boxes.forEach((box) => box.addEventListener("change", filter));
    whenTyped(words, filter);
  }

  const search = find("tree-search");
  if (search) {
    const functions = [...document.querySelectorAll(".function")].map((item) =>
      [item, item.querySelector("summary").textContent.toLowerCase()]);
    whenTyped(search, () => {
      const wanted = search.value.toLowerCase().split(/\s+/);
      let found = 0;
      const keep = new Set();
      for (const [item, text] of functions) {
        if (!wanted.every((word) => text.includes(word))) continue;
        found += 1;
        for (let at = item; at && !keep.has(at); at = at.parentElement.closest(".function")) keep.add(at);
      }
      for (const [item] of functions) item.hidden = !keep.has(item);
      find("tree-count").textContent = `${found} of ${functions.length} functions`;
    });
    const all = (open) => document.querySelectorAll("#tree details").forEach((item) => { item.open = open; });
    find("tree-open").addEventListener("click", () => all(true));
    find("tree-close").addEventListener("click", () => all(false));
  }

  // A link leads to a function's summary, which the browser focuses by itself, once it can be seen.
  const show = () => {
    const target = location.hash && find(decodeURIComponent(location.hash.slice(1)));
    for (let at = target; at; at = at.parentElement) {
      if (at.tagName === "DETAILS") at.open = true;
      at.hidden = false;
    }
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", show);
  show();
  addEventListener("beforeprint", () =>
    document.querySelectorAll("details").forEach((item) => { item.open = true; }));
})();
