// The page: which picture and which panes are shown, in which order, and all that can be pressed.

const gallery = JSON.parse(element("data").textContent);
const rows = document.querySelectorAll("script.row");
const state = { order: gallery.pictures.map((_, i) => i), at: 0, left: 0, right: 1, descending: false };
const dark = matchMedia("(prefers-color-scheme: dark)");

// Pictures stay text until they are looked at.
function sources(picture) {
  return JSON.parse(rows[picture].textContent).map((text) => text && `data:image/webp;base64,${text}`);
}

function show(picture, source, pane) {
  const image = pane;
  if (source) image.src = source;
  else image.removeAttribute("src");
  image.alt = source ? picture : "";
}

function showPicture(announce) {
  const picture = state.order[state.at];
  const { name, cells } = gallery.pictures[picture];
  const place = `${state.at + 1} of ${gallery.pictures.length}`;
  const found = sources(picture);
  element("name").textContent = name;
  element("name").title = name;
  element("place").textContent = `Picture ${place}`;
  element("previous").disabled = state.at === 0;
  element("next").disabled = state.at === gallery.pictures.length - 1;
  for (const side of ["left", "right"]) {
    const pane = state[side];
    show(`${name}, ${gallery.panes[pane].name}`, found[pane], element(`${side}-picture`));
    element(`${side}-tag`).textContent = gallery.panes[pane].name;
    element(side).value = pane;
  }
  const lost = ["left", "right"].filter((side) => !cells[state[side]]);
  element("stage-missing").hidden = !lost.length;
  element("stage-missing").textContent = lost.map((side) => missing(gallery.panes[state[side]])).join(" ");
  const best = { psnr: nearest(picture, "psnr"), lpips: nearest(picture, "lpips") };
  gallery.panes.forEach((pane, i) => fillCard(i, name, cells[i], found[i], best));
  for (const button of document.querySelectorAll("#strip button")) {
    const current = Number(button.dataset.picture) === picture;
    button.tabIndex = current ? 0 : -1;
    if (current) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    if (current) reveal(button);
  }
  element("verdict").textContent = verdict(state.left, state.right);
  moveDivider(split);
  if (announce) element("live").textContent = `Picture ${place}: ${name}`;
}

function missing(pane) {
  return `${pane.name} cannot make a file so small.`;
}

// Within the strip alone: scrollIntoView would move the page too.
function reveal(button) {
  const strip = element("strip");
  const item = button.parentElement;
  const left = item.offsetLeft - strip.offsetLeft;
  if (left < strip.scrollLeft || left + item.offsetWidth > strip.scrollLeft + strip.clientWidth) {
    strip.scrollLeft = left - (strip.clientWidth - item.offsetWidth) / 2;
  }
}

function go(to) {
  if (to < 0 || to >= gallery.pictures.length || to === state.at) return;
  const focused = element("strip").contains(document.activeElement);
  state.at = to;
  showPicture(true);
  if (focused) document.querySelector('#strip [aria-current="true"]').focus();
}

function choose(side, pane) {
  const other = side === "left" ? "right" : "left";
  if (state[other] === pane) state[other] = state[side];
  state[side] = pane;
  showPicture(false);
}

function makeCards() {
  gallery.panes.forEach((pane, i) => {
    const card = make("article", undefined, `card ${pane.kind}`);
    const box = make("div", undefined, "view");
    box.title = pane.about;
    box.append(make("img"), make("p", missing(pane), "missing"));
    const heading = make("h3", pane.name);
    heading.title = pane.name;
    const sides = make("div", undefined, "choice");
    for (const side of ["left", "right"]) {
      const button = make("button", side === "left" ? "Left" : "Right");
      button.type = "button";
      button.dataset.side = side;
      button.setAttribute("aria-label", `Show ${pane.name} on the ${side}`);
      button.addEventListener("click", () => choose(side, i));
      sides.append(button);
    }
    card.append(box, heading, make("dl"), sides);
    element("panes").append(card);
    follow(box, null, () => choose(state.left === i ? "left" : "right", i));
    followWheel(box, false);
  });
}

function fillCard(pane, name, cell, source, best) {
  const card = element("panes").children[pane];
  card.classList.toggle("none", !cell);
  show(`${name}, ${gallery.panes[pane].name}`, source, card.querySelector("img"));
  for (const button of card.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(state[button.dataset.side] === pane));
  }
  const list = card.querySelector("dl");
  list.replaceChildren();
  if (!cell) return;
  list.title = cell.about;
  const add = (label, ...value) => {
    const description = make("dd");
    description.append(...value);
    list.append(make("dt", label), description);
    return description;
  };
  if (gallery.panes[pane].kind === "original") {
    add("Raw bytes", whole(3 * gallery.size.width * gallery.size.height));
  }
  if (cell.bytes !== null) add("Bytes", whole(cell.bytes), header(cell));
  for (const [kind, label] of [["psnr", "PSNR"], ["lpips", "LPIPS"]]) {
    if (cell[kind] === null) continue;
    const value = add(label, written(kind, cell[kind]));
    if (!best[kind].includes(pane)) continue;
    value.className = "best";
    value.append(make("span", " (nearest)", "hidden"));
  }
}

function header(cell) {
  if (cell.file_bytes === null) return "";
  const added = make("span", ` + ${whole(cell.file_bytes - cell.bytes)}`, "quiet");
  added.append(make("span", " of header", "hidden"));
  return added;
}

function pixels() {
  return `${gallery.size.width} × ${gallery.size.height}`;
}

function sort() {
  const [kind, pane] = [element("sort").value, Number(element("sort-pane").value)];
  element("sort-of").hidden = kind === "given" || kind === "name";
  element("direction").hidden = kind === "given";
  element("direction").textContent = directionText(kind);
  const sign = state.descending ? -1 : 1;
  const names = gallery.pictures.map((picture) => picture.name);
  state.order = names.map((_, i) => i);
  if (kind === "name") {
    state.order.sort((a, b) => sign * names[a].localeCompare(names[b], "en", { numeric: true }));
  } else if (kind !== "given") {
    const values = names.map((_, i) => number(i, pane, kind));
    state.order.sort((a, b) => {
      if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null);
      return sign * (values[a] - values[b]);
    });
  }
  state.at = 0;
  fillStrip(kind, pane);
  showPicture(true);
}

function directionText(kind) {
  if (kind === "name") return state.descending ? "Z to A" : "A to Z";
  return state.descending ? "highest first" : "lowest first";
}

const lazy = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((entry) => entry.isIntersecting)) {
      const button = entry.target;
      button.querySelector("img").src = sources(Number(button.dataset.picture))[0];
      lazy.unobserve(button);
    }
  },
  { root: element("strip"), rootMargin: "0px 400px" },
);

const items = gallery.pictures.map((picture, i) => {
  const item = make("li");
  const button = make("button");
  button.type = "button";
  button.dataset.picture = i;
  button.title = picture.name;
  const image = make("img");
  image.alt = picture.name;
  button.append(image, make("span", ""));
  button.addEventListener("click", () => go(state.order.indexOf(i)));
  item.append(button);
  lazy.observe(button);
  return item;
});

function fillStrip(kind, pane) {
  state.order.forEach((picture) => {
    const counted = kind !== "given" && kind !== "name";
    const value = counted ? number(picture, pane, kind) : null;
    items[picture].querySelector("span").textContent = counted ? written(kind, value) : "";
  });
  element("strip").replaceChildren(...state.order.map((picture) => items[picture]));
  element("strip").scrollLeft = 0;
}

function setTheme(name) {
  root.dataset.theme = name;
  element("theme").textContent = name === "dark" ? "Light" : "Dark";
  element("theme").setAttribute("aria-label", name === "dark" ? "Light colours" : "Dark colours");
}

function keys(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("select, .scroll")) return;
  const arrows = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (event.shiftKey && event.key in arrows && view.zoom > 1) pan(...arrows[event.key].map((step) => step / 10));
  else if (event.shiftKey && event.key in arrows) return;
  else if (event.key === "ArrowLeft") go(state.at - 1);
  else if (event.key === "ArrowRight") go(state.at + 1);
  else if (event.key === "+" || event.key === "=") zoomTo(view.zoom * 1.5);
  else if (event.key === "-") zoomTo(view.zoom / 1.5);
  else if (event.key === "0") zoomTo(1);
  else return;
  event.preventDefault();
}

function start() {
  const models = gallery.panes.flatMap((pane, i) => (pane.kind === "model" ? [i] : []));
  state.right = models.length ? models[0] : 1;
  root.style.setProperty("--aspect", gallery.size.width / gallery.size.height);
  const count = gallery.pictures.length;
  element("summary").textContent = `${count} picture${count > 1 ? "s" : ""} of ${pixels()} pixels`;
  for (const id of ["left", "right", "sort-pane"]) {
    gallery.panes.forEach((pane, i) => {
      if (id === "sort-pane" && pane.kind === "original") return;
      const option = make("option", pane.name);
      option.value = i;
      element(id).append(option);
    });
  }
  element("sort-pane").value = state.right;
  makeCards();
  fillTotals();
  follow(element("stage"), (x) => moveDivider(100 * x), null);
  followWheel(element("stage"), true);
  watchDivider();
  const press = (id, action) => element(id).addEventListener("click", action);
  press("previous", () => go(state.at - 1));
  press("next", () => go(state.at + 1));
  press("swap", () => choose("left", state.right));
  press("zoom-in", () => zoomTo(view.zoom * 1.5));
  press("zoom-out", () => zoomTo(view.zoom / 1.5));
  press("fit", () => zoomTo(1));
  press("theme", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  press("direction", () => {
    state.descending = !state.descending;
    sort();
  });
  press("smooth", () => {
    const smooth = element("smooth");
    smooth.setAttribute("aria-pressed", String(smooth.getAttribute("aria-pressed") !== "true"));
    sharpen();
  });
  for (const side of ["left", "right"]) {
    element(side).addEventListener("change", () => choose(side, Number(element(side).value)));
  }
  for (const id of ["sort", "sort-pane"]) element(id).addEventListener("change", sort);
  document.addEventListener("keydown", keys);
  addEventListener("resize", sharpen);
  dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
  setTheme(dark.matches ? "dark" : "light");
  sort();
  showView();
}

start();
