// Keys, sorting, filtering, copying. Every page is complete without them.
"use strict";

const KEYS = { ArrowLeft: "prev", ArrowRight: "next", ArrowUp: "up", u: "up" };
const HINTS = { prev: "Left arrow", next: "Right arrow", up: "Up arrow or U" };

for (const [rel, keys] of Object.entries(HINTS)) {
  document.querySelector(`a[rel="${rel}"]`)?.setAttribute("title", `Key: ${keys}`);
}

document.addEventListener("keydown", (event) => {
  const busy = event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;
  if (busy || !(event.key in KEYS) || event.target.closest("input, select")) return;
  // Up leaves a page only where it has nothing left to scroll, and not because it was held down to get there.
  if (event.key === "ArrowUp" && (window.scrollY > 0 || event.repeat)) return;
  document.querySelector(`a[rel="${KEYS[event.key]}"]`)?.click();
});

const STATES = ["ok", "weak", "dead", "missing"];
const ORDERS = {
  number: (a, b) => a.dataset.number - b.dataset.number,
  score: (a, b) => (b.dataset.score ?? -Infinity) - (a.dataset.score ?? -Infinity) || ORDERS.number(a, b),
  status: (a, b) => STATES.indexOf(a.dataset.status) - STATES.indexOf(b.dataset.status) || ORDERS.number(a, b),
};

const tools = document.querySelector("form.tools");
if (tools) {
  const grid = document.querySelector(".grid");
  const figures = [...grid.children];
  const { sort, status, number } = tools.elements;
  const show = () => {
    const wanted = number.value.trim();
    for (const figure of figures) {
      const { number: own, status: state } = figure.dataset;
      figure.hidden = (status.value && state !== status.value) || (wanted && Number(wanted) !== Number(own));
    }
    grid.append(...figures.sort(ORDERS[sort.value]));
    const shown = figures.filter((figure) => !figure.hidden).length;
    tools.querySelector("output").value = `${shown} of ${figures.length} shown`;
  };
  tools.addEventListener("input", show);
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.hidden = false;
  show(); // a browser may have kept what was chosen before
}

for (const button of document.querySelectorAll("button.copy")) {
  const code = button.parentElement.querySelector("code");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(code);
      button.textContent = "Selected: copy it with Ctrl+C";
    }
  });
}
