"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
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
