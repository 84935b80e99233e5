"use strict";
(() => {
  const by = (id) => document.getElementById(id);
  const place = by("rows");
  const rows = [...place.children].map((element, first) => ({
    element,
    first,
    at: Number(element.dataset.at),
    objectives: element.dataset.objectives,
    prompt: element.querySelector(".question").textContent.toLowerCase(),
  }));
  const boxes = [...document.querySelectorAll("#controls [name=system]")];
  let shown = rows;

  const filter = () => {
    const objectives = by("objectives").value;
    const words = by("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (row) =>
      (!objectives || row.objectives === objectives) && words.every((word) => row.prompt.includes(word));
    for (const row of rows) row.element.hidden = !fits(row);
    shown = rows.filter((row) => !row.element.hidden);
    by("count").value = `${shown.length} of ${rows.length} shown`;
  };

  const choose = () => {
    const chosen = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    for (const answer of place.querySelectorAll("[data-system]")) answer.hidden = !chosen.has(answer.dataset.system);
  };

  const sort = () => {
    const key = by("order").value;
    rows.sort((one, other) => one[key] - other[key]);
    place.append(...rows.map((row) => row.element));
    filter();
  };

  const all = () => {
    by("objectives").value = by("words").value = "";
    filter();
  };

  const go = (step) => {
    const now = shown.findIndex((row) => row.element.contains(document.activeElement));
    const next = shown[Math.max(0, Math.min(shown.length - 1, now + step))];
    if (!next) return;
    next.element.focus({ preventScroll: true });
    next.element.scrollIntoView({ block: "start" });
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=search], select");
    if (event.key === "Escape" && typing) return event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j") go(1);
    if (event.key === "k") go(-1);
    if (event.key === "/") {
      event.preventDefault();
      by("words").focus();
    }
  });
  by("controls").addEventListener("submit", (event) => event.preventDefault());
  by("objectives").addEventListener("change", filter);
  by("words").addEventListener("input", filter);
  for (const link of document.querySelectorAll(".leads a")) link.addEventListener("click", all);
  by("order").addEventListener("change", sort);
  for (const box of boxes) box.addEventListener("change", choose);
  sort(); // a browser may have restored an earlier choice
  choose();
  by("controls").hidden = false;
})();
