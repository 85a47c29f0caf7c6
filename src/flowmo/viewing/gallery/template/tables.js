// Numbers: how they are written, which is nearest, and what they are over all pictures.

const whole = (value) => Math.round(value).toLocaleString("en");
const FORMATS = {
  bytes: (value) => `${whole(value)} B`,
  psnr: (value) => `${value.toFixed(2)} dB`,
  lpips: (value) => value.toFixed(3),
};

function written(kind, value) {
  return value === null || value === undefined ? "–" : FORMATS[kind](value);
}

function number(picture, pane, kind) {
  const cell = gallery.pictures[picture].cells[pane];
  return cell ? cell[kind] : null;
}

// The panes, originals aside, to which none is nearer in this picture; psnr: higher is nearer, lpips: lower.
function nearest(picture, kind) {
  const sign = kind === "psnr" ? -1 : 1;
  let best = Infinity;
  let found = [];
  gallery.panes.forEach((pane, i) => {
    const value = pane.kind === "original" ? null : number(picture, i, kind);
    if (value === null) return;
    if (sign * value < best) [best, found] = [sign * value, [i]];
    else if (sign * value === best) found.push(i);
  });
  return found;
}

function all(pane, kind) {
  return gallery.pictures.map((_, picture) => number(picture, pane, kind)).filter((value) => value !== null);
}

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function fillTotals() {
  const count = gallery.pictures.length;
  const won = { psnr: gallery.panes.map(() => 0), lpips: gallery.panes.map(() => 0) };
  for (let picture = 0; picture < count; picture++) {
    for (const kind of ["psnr", "lpips"]) for (const pane of nearest(picture, kind)) won[kind][pane]++;
  }
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const mean = (pane, kind) => {
    const values = all(pane, kind);
    return values.length === count ? sum(values) / count : null;
  };
  const share = (wins, known) => (known ? `${Math.round((100 * wins) / count)} %` : "–");
  const pixels = gallery.size.width * gallery.size.height;
  const fixed = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  const rate = (bytes) => (bytes === null ? null : (8 * bytes) / pixels);
  const columns = [
    ["bytes a picture", (pane) => fixed(mean(pane, "bytes"), 1)],
    ["with headers", (pane) => fixed(mean(pane, "file_bytes"), 1)],
    ["bits per pixel", (pane) => fixed(rate(mean(pane, "bytes")), 3)],
    ["bytes in all", (pane) => (all(pane, "bytes").length ? whole(sum(all(pane, "bytes"))) : "–")],
    ["PSNR, mean", (pane) => written("psnr", mean(pane, "psnr"))],
    ["LPIPS, mean", (pane) => written("lpips", mean(pane, "lpips"))],
    ["nearest by PSNR", (pane) => share(won.psnr[pane], all(pane, "psnr").length)],
    ["nearest by LPIPS", (pane) => share(won.lpips[pane], all(pane, "lpips").length)],
  ];
  const head = element("totals").createTHead().insertRow();
  for (const title of ["", ...columns.map((column) => column[0])]) {
    const cell = make("th", title);
    cell.scope = "col";
    head.append(cell);
  }
  const body = element("totals").createTBody();
  gallery.panes.forEach((pane, i) => {
    if (pane.kind === "original") return;
    const row = body.insertRow();
    if (pane.kind === "model") row.className = "model";
    const name = make("th", pane.name);
    name.scope = "row";
    const shown = gallery.pictures.filter((picture) => picture.cells[i]).length;
    if (shown < count) name.append(make("span", ` ${shown} of ${count} pictures`, "quiet"));
    row.append(name, ...columns.map(([, value]) => make("td", value(i))));
  });
}

// In how many pictures the left or the right pane is nearer to the original.
function verdict(left, right) {
  const names = [left, right].map((pane) => gallery.panes[pane].name);
  const kinds = [left, right].map((pane) => gallery.panes[pane].kind);
  if (left === right || kinds.includes("original")) return "";
  const sentences = [];
  for (const [kind, label, sign] of [["lpips", "LPIPS", 1], ["psnr", "PSNR", -1]]) {
    let [known, wins, losses] = [0, 0, 0];
    for (let picture = 0; picture < gallery.pictures.length; picture++) {
      const [a, b] = [left, right].map((pane) => number(picture, pane, kind));
      if (a === null || b === null) continue;
      known++;
      if (sign * a < sign * b) wins++;
      else if (sign * b < sign * a) losses++;
    }
    if (known) sentences.push(`by ${label} ${names[0]} in ${wins}, ${names[1]} in ${losses} of ${known} pictures`);
  }
  return sentences.length ? `Nearer to the original: ${sentences.join("; ")}.` : "";
}
