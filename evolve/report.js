// What report.html does: draws its pictures one after the other, in light or dark, and sorts its tables.
"use strict";
(() => {
  const told = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const narrow = window.matchMedia("(max-width: 640px)");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const BUTTONS = [["zoom2d", "pan2d", "resetScale2d", "toImage"]];
  const CONFIG = { responsive: true, displaylogo: false, displayModeBar: true, modeBarButtons: BUTTONS };
  let chosen = "";

  const isDark = () => (chosen ? chosen === "dark" : system.matches);

  function draw(name) {
    const place = document.getElementById(`plot-${name}`);
    const { data, layout, narrow: slim } = told.figures[name];
    const own = structuredClone(narrow.matches && slim ? slim : layout);
    own.template = told.templates[isDark() ? "dark" : "light"];
    place.style.height = `${own.height}px`;
    return Plotly.react(place, data, own, { ...CONFIG, displayModeBar: !narrow.matches });
  }

  let turn = 0;
  async function drawAll() {
    const mine = ++turn;
    delete root.dataset.drawn;
    root.dataset.theme = isDark() ? "dark" : "light";
    for (const name of Object.keys(told.figures)) {
      if (mine !== turn) return; // a newer one has begun
      await draw(name);
      await new Promise((next) => setTimeout(next)); // let the page answer in between
    }
    root.dataset.drawn = "all";
  }

  const toggle = document.getElementById("theme");
  function label() {
    toggle.textContent = isDark() ? "Light" : "Dark";
  }
  toggle.addEventListener("click", () => {
    chosen = isDark() ? "light" : "dark";
    label();
    drawAll();
  });
  system.addEventListener("change", () => { label(); drawAll(); });
  narrow.addEventListener("change", drawAll);
  label();
  drawAll();

  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const table = head.closest("table");
      const at = [...head.parentNode.children].indexOf(head);
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.children[at];
        const number = cell.dataset.value ?? cell.textContent;
        return number.trim() === "" ? null : Number.isNaN(Number(number)) ? number : Number(number);
      };
      const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
      rows.sort(([one], [other]) => {
        if (one === null || other === null) return (one === null) - (other === null); // what is missing comes last
        const order = typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other));
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  }

  const filter = document.getElementById("states");
  filter?.addEventListener("change", () => {
    for (const row of document.querySelectorAll("#trials tbody tr")) {
      row.hidden = filter.value !== "" && row.dataset.state !== filter.value;
    }
  });

  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.of).textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        const range = document.createRange();
        range.selectNodeContents(document.getElementById(button.dataset.of));
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
})();
