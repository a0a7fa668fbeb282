"use strict";
// Sections: a link opens the section that it leads to, and printing opens all of them
(() => {
  const sections = [...document.querySelectorAll("details.section")];
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const own = target.querySelector(":scope > details.section") || target.closest("details.section");
    if (own) own.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.getAttribute("href") === location.hash) reveal();  // a second click on the same link
  });
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.section, details.printed")].filter((section) => !section.open);
    closed.forEach((section) => { section.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((section) => { section.open = false; }));
  const button = document.createElement("button");
  const label = () => { button.textContent = sections.every((section) => section.open) ? "Close all" : "Open all"; };
  button.type = "button";
  button.id = "all-sections";
  button.addEventListener("click", () => {
    const open = !sections.every((section) => section.open);
    sections.forEach((section) => { section.open = open; });
    label();
  });
  sections.forEach((section) => section.addEventListener("toggle", label));
  label();
  document.getElementById("sections").append(button);
  if (location.hash) reveal();
})();

// Tables: a click on a heading sorts by its column, a button saves the table as CSV
(() => {
  const text = (cell) => cell.textContent.replace(/\s+/g, " ").trim();
  const value = (cell) => cell.dataset.value ?? text(cell);
  // a number as the page writes it: 1,234 or ≥ 8.69 × 10⁻⁵ or 12.5 %
  const number = (cell) => {
    const digits = "⁰¹²³⁴⁵⁶⁷⁸⁹";
    const plain = value(cell).replace(/^[≥✕]\s*/, "").replace(/(?<=\d),(?=\d{3})/g, "")
      .replace(/\s*×\s*10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)/, (_, power) => "e" + [...power].map((c) => (c === "⁻" ? "-" : digits.indexOf(c))).join(""));
    const found = /^-?\d+(\.\d+)?(e-?\d+)?(?=$|\s)/.exec(plain);
    return found ? Number(found[0]) : null;
  };
  const inOrder = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x !== null && y !== null) return x - y;
    if (x !== null || y !== null) return x !== null ? -1 : 1;  // words after numbers
    return value(a).localeCompare(value(b));
  };

  function sort(table, heading, column) {
    const down = heading.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => (down ? -1 : 1) * inOrder(a.cells[column], b.cells[column]));
    table.tBodies[0].append(...rows);
  }

  function csv(table) {
    const quoted = (field) => (/[",\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field);
    const headings = [...table.tHead.rows[0].cells].map((cell) => {
      const unit = cell.dataset.unit ?? (cell.querySelector(".unit")?.textContent || "");
      const own = cell.querySelector(".unit") ? text(cell).slice(0, -unit.length).trim() : text(cell);
      return unit ? `${own} (${unit})` : own;
    });
    const body = [...table.tBodies, ...(table.tFoot ? [table.tFoot] : [])].flatMap((part) => [...part.rows]);
    const field = (cell) => {
      const amount = cell.classList.contains("n") && number(cell);
      return typeof amount === "number" && /^[\d,.\s×⁻⁰-⁹¹²³%e+-]+$/.test(value(cell)) ? String(amount) : value(cell);
    };
    return [headings, ...body.map((row) => [...row.cells].map(field))].map((row) => row.map(quoted).join(",")).join("\r\n");
  }

  document.querySelectorAll("table").forEach((table) => {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      heading.classList.add("sortable");
      heading.tabIndex = 0;
      heading.title = "Sort";
      heading.addEventListener("click", () => sort(table, heading, column));
      heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(table, heading, column); });
    });
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "CSV";
    const box = table.closest(".scroll") || table;
    const name = `${table.closest("section").id}-${(box.getAttribute("aria-label") || "files").toLowerCase().replace(/\W+/g, "-")}.csv`;
    button.title = `Save this table as ${name}`;
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(["\ufeff", csv(table), "\r\n"], { type: "text/csv" }));
      link.download = name;
      link.click();
      URL.revokeObjectURL(link.href);
    });
    const tools = document.createElement("div");
    tools.className = "tools";
    tools.append(button);
    box.before(tools);
  });
})();

// The clip: its skeleton and the cursor in its rasters, frame by frame
(() => {
  const $ = (id) => document.getElementById(id);
  if (!$("clip-data")) return;
  const data = JSON.parse($("clip-data").textContent);
  const [slider, select, play] = [$("clip-frame"), $("clip-population"), $("clip-play")];
  const panels = [...document.querySelectorAll("[data-raster]")];
  const bones = [...document.querySelectorAll("#skeleton .bone")];
  const joints = [...document.querySelectorAll("#skeleton .joint")];
  let frame = 0;
  let timer = null;

  function draw() {
    const chosen = select.selectedIndex;
    const population = data.populations[chosen];
    const points = data.points[frame];
    const own = Math.floor((frame * population.frames) / data.frames);  // fewer frames after a stride
    bones.forEach((line, i) => {
      const [[x1, y1], [x2, y2]] = data.bones[i].map((joint) => points[joint]);
      Object.entries({ x1, y1, x2, y2 }).forEach(([name, value]) => line.setAttribute(name, value));
    });
    joints.forEach((circle, i) => {
      const fired = population.fired[own][i];
      const [cx, cy] = points[i];
      Object.entries({ cx, cy, r: population.radii[fired] }).forEach(([name, value]) => circle.setAttribute(name, value));
      circle.classList.toggle("silent", fired === 0);
    });
    panels.forEach((panel, i) => { panel.hidden = i !== chosen; });
    const cursor = panels[chosen].querySelector(".cursor");
    cursor.style.left = `${(100 * own) / population.frames}%`;
    cursor.style.width = `${100 / population.frames}%`;
    slider.value = frame;
    slider.setAttribute("aria-valuetext", `frame ${frame + 1} of ${data.frames}`);
    $("clip-number").textContent = frame + 1;
    $("clip-text").textContent = population.captions[own];
  }

  function go(to) {
    frame = Math.min(Math.max(to, 0), data.frames - 1);
    draw();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    $("clip-text").setAttribute("aria-live", "polite");
  }

  function start() {
    // Nothing moves unless the reader asks; who asked for less motion gets it slower
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const pause = calm ? 1200 : Math.min(Math.max(4000 / data.frames, 80), 500);
    timer = setInterval(() => go((frame + 1) % data.frames), pause);
    play.textContent = "Pause";
    $("clip-text").setAttribute("aria-live", "off");
  }

  const byHand = (to) => { stop(); go(to); };
  slider.addEventListener("input", () => byHand(Number(slider.value)));
  select.addEventListener("change", draw);
  play.addEventListener("click", () => (timer === null ? start() : stop()));
  $("clip-back").addEventListener("click", () => byHand(frame - 1));
  $("clip-on").addEventListener("click", () => byHand(frame + 1));
  $("fig-clip").addEventListener("keydown", (event) => {
    const to = { ArrowLeft: frame - 1, ArrowRight: frame + 1, Home: 0, End: data.frames - 1 }[event.key];
    if (to === undefined || event.target === select || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    byHand(to);
  });
  $("clip-controls").hidden = false;
  draw();
})();
