// Zoom and pan, the same in all panes: the pictures read three custom properties of the page, in shares of their size.
"use strict";

const MOST_ZOOM = 32;
const view = { zoom: 1, x: 0.5, y: 0.5 }; // the middle of what is seen, in shares of the picture
const root = document.documentElement;
const element = (id) => document.getElementById(id);

function showView() {
  const half = 0.5 / view.zoom;
  view.x = Math.min(1 - half, Math.max(half, view.x));
  view.y = Math.min(1 - half, Math.max(half, view.y));
  root.style.setProperty("--zoom", view.zoom);
  root.style.setProperty("--x", `${100 * (0.5 - view.x * view.zoom)}%`);
  root.style.setProperty("--y", `${100 * (0.5 - view.y * view.zoom)}%`);
  root.classList.toggle("zoomed", view.zoom > 1);
  element("zoom").textContent = `${view.zoom.toFixed(view.zoom < 10 && view.zoom % 1 ? 1 : 0)}×`;
  element("zoom-out").disabled = element("fit").disabled = view.zoom <= 1;
  element("zoom-in").disabled = view.zoom >= MOST_ZOOM;
  sharpen();
}

// Enlarged pictures show their pixels as squares; those made smaller are smoothed, since squares would be left out.
function sharpen() {
  const smooth = element("smooth").getAttribute("aria-pressed") === "true";
  for (const box of document.querySelectorAll(".view")) {
    const enlarged = box.clientWidth * view.zoom * devicePixelRatio > gallery.size.width;
    box.classList.toggle("pixels", enlarged && !smooth);
  }
}

// px, py: the place that stays where it is, in shares of the pane.
function zoomTo(zoom, px = 0.5, py = 0.5) {
  zoom = Math.min(MOST_ZOOM, Math.max(1, zoom));
  view.x += (px - 0.5) * (1 / view.zoom - 1 / zoom);
  view.y += (py - 0.5) * (1 / view.zoom - 1 / zoom);
  view.zoom = zoom;
  showView();
}

// dx, dy: in shares of the pane.
function pan(dx, dy) {
  view.x -= dx / view.zoom;
  view.y -= dy / view.zoom;
  showView();
}

// One finger or the mouse drags, two zoom. drag: where one has moved at zoom 1, in shares of the pane. click: pressed
// and let go at one place.
function follow(box, drag, click) {
  const fingers = new Map();
  let moved = false;
  const place = (event) => {
    const r = box.getBoundingClientRect();
    return { x: (event.clientX - r.left) / r.width, y: (event.clientY - r.top) / r.height };
  };
  const middle = () => {
    const all = [...fingers.values()];
    const [a, b] = [all[0], all[all.length - 1]];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, spread: Math.hypot(a.x - b.x, a.y - b.y) };
  };
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    if (!fingers.size) moved = false;
    fingers.set(event.pointerId, place(event));
    box.setPointerCapture(event.pointerId);
  });
  box.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = middle();
    const start = fingers.get(event.pointerId);
    const now = place(event);
    if (!moved && Math.hypot(now.x - start.x, now.y - start.y) * box.clientWidth < 4) return;
    moved = true;
    fingers.set(event.pointerId, now);
    const after = middle();
    if (view.zoom > 1 || fingers.size > 1) pan(after.x - before.x, after.y - before.y);
    else if (drag) drag(now.x);
    if (fingers.size > 1 && before.spread > 0) zoomTo((view.zoom * after.spread) / before.spread, after.x, after.y);
  });
  const end = (event) => {
    if (!fingers.delete(event.pointerId)) return;
    if (!moved && !fingers.size && event.type === "pointerup" && click) click(place(event).x);
  };
  box.addEventListener("pointerup", end);
  box.addEventListener("pointercancel", end);
}

// Over the stage the wheel zooms; over a small pane only with Control (or two fingers on a touch pad), so that the page
// can be scrolled there.
function followWheel(box, always) {
  box.addEventListener(
    "wheel",
    (event) => {
      if (!always && !event.ctrlKey) return;
      if (view.zoom <= 1 && event.deltaY > 0 && !event.ctrlKey) return;
      event.preventDefault();
      const r = box.getBoundingClientRect();
      const lines = event.deltaMode === 1 ? 16 : 1;
      const speed = event.ctrlKey ? 0.01 : 0.002;
      const factor = Math.exp(-Math.max(-200, Math.min(200, event.deltaY * lines)) * speed);
      zoomTo(view.zoom * factor, (event.clientX - r.left) / r.width, (event.clientY - r.top) / r.height);
    },
    { passive: false },
  );
}
