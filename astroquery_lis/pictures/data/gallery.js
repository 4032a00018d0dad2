"use strict";
(() => {
  const body = document.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...document.querySelectorAll("th")];
  const tools = document.getElementById("tools");
  const search = document.getElementById("search");
  const sorter = document.getElementById("sorter");
  const turn = document.getElementById("turn");
  const view = document.getElementById("view");
  const shown = document.getElementById("shown");
  const dialog = document.querySelector("dialog");
  let current = null;

  /* What can be chosen is read from the table: a box per status, and a button per column. */
  const counts = new Map();
  for (const row of rows) {
    counts.set(row.dataset.status, (counts.get(row.dataset.status) ?? 0) + 1);
  }
  const boxes = [...counts].map(([status, count]) => {
    const label = document.createElement("label");
    label.innerHTML = '<input type="checkbox" checked>';
    label.append(`${status} (${count})`);
    document.getElementById("statuses").append(label);
    return Object.assign(label.firstChild, { value: status });
  });
  heads.forEach((head, index) => {
    if (head.matches(".picture, .link")) return;
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.textContent = head.textContent;
    head.replaceChildren(button);
    head.setAttribute("aria-sort", index === 0 ? "ascending" : "none");
    sorter.add(new Option(index === 0 ? "Order given" : button.textContent, index));
  });

  const visible = () => [...body.rows].filter((row) => !row.hidden);
  const opener = (row) => row.querySelector(".open, .blank");
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;

  function filter() {
    const words = search.value.trim().toLowerCase();
    const allowed = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    for (const row of rows) {
      row.hidden = !allowed.has(row.dataset.status) ||
        (words !== "" && !row.textContent.toLowerCase().includes(words));
    }
    shown.textContent = `${visible().length} of ${rows.length} shown`;
  }

  function sort(column, descending) {
    const sign = descending ? -1 : 1;
    const number = heads[column].classList.contains("number");
    const key = (text) => number ? Number.parseFloat(text) : text;
    const isEmpty = (value) => value === "" || Number.isNaN(value);
    const keyed = rows.map((row) => [key(row.cells[column].textContent), row]);
    keyed.sort(([one], [other]) => {
      // A row without a value comes last either way.
      if (isEmpty(one) || isEmpty(other)) return isEmpty(one) - isEmpty(other);
      return sign * (number ? one - other : compare(one, other));
    });
    body.append(...keyed.map(([, row]) => row));
    heads.forEach((head, index) => {
      if (head.querySelector("button")) {
        head.setAttribute("aria-sort",
          index !== column ? "none" : descending ? "descending" : "ascending");
      }
    });
    sorter.value = column;
    turn.setAttribute("aria-pressed", descending);
  }

  function show(row) {
    current = row;
    const image = row.querySelector("img");
    const large = dialog.querySelector("img");
    large.hidden = !image;
    if (image) {
      large.src = image.src;
      large.alt = image.alt;
    }
    dialog.querySelector("h2").textContent = row.querySelector(".name").textContent;
    dialog.querySelector(".about").textContent = [...row.cells]
      .filter((cell) => cell.textContent && ["", "number"].includes(cell.className))
      .map((cell) => `${cell.dataset.label} ${cell.textContent}`).join(", ");
    const message = row.querySelector(".message").textContent;
    dialog.querySelector(".told").textContent =
      row.dataset.status === "COMPLETE" && !message ? "" : `${row.dataset.status} ${message}`;
    const link = row.querySelector(".link a");
    const away = dialog.querySelector("a");
    away.hidden = !link;
    if (link) away.href = link.href;
    const list = visible();
    const place = list.indexOf(row);
    dialog.querySelector(".place").textContent = `${place + 1} of ${list.length}`;
    if (!dialog.open) dialog.showModal();
  }

  function step(by) {
    const list = visible();
    const place = list.indexOf(current);
    show(list[(place + by + list.length) % list.length]);
  }

  /* How many cards stand side by side. */
  function perLine(list) {
    const top = list[0].offsetTop;
    const next = list.findIndex((row) => row.offsetTop !== top);
    return next < 1 ? list.length : next;
  }

  body.addEventListener("click", (event) => {
    if (event.target.closest(".open, .blank")) show(event.target.closest("tr"));
  });
  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr");
    if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
    const list = visible();
    const place = list.indexOf(row);
    const isGrid = document.body.classList.contains("grid");
    const line = isGrid ? perLine(list) : 1;
    const moves = { ArrowUp: -line, ArrowDown: line, Home: -place, End: list.length - 1 - place };
    if (isGrid) Object.assign(moves, { ArrowLeft: -1, ArrowRight: 1 });
    if (!(event.key in moves)) return;
    const to = list[place + moves[event.key]];
    event.preventDefault();
    if (to) {
      opener(to).focus();
      to.scrollIntoView({ block: "nearest" });
    }
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => opener(current).focus());
  dialog.querySelector(".before").addEventListener("click", () => step(-1));
  dialog.querySelector(".after").addEventListener("click", () => step(1));
  dialog.querySelector(".shut").addEventListener("click", () => dialog.close());
  heads.forEach((head, index) => {
    head.querySelector("button")?.addEventListener("click",
      () => sort(index, head.getAttribute("aria-sort") === "ascending"));
  });
  search.addEventListener("input", filter);
  boxes.forEach((box) => box.addEventListener("change", filter));
  const again = (flip) =>
    sort(Number(sorter.value), (turn.getAttribute("aria-pressed") === "true") !== flip);
  sorter.addEventListener("change", () => again(false));
  turn.addEventListener("click", () => again(true));
  view.addEventListener("click", () => {
    const isGrid = document.body.classList.toggle("grid");
    view.setAttribute("aria-pressed", isGrid);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !dialog.open && event.target !== search) {
      event.preventDefault();
      search.focus();
    }
  });
  tools.hidden = false;
  filter();
})();
