// The divider between the left and the right pane: a slider for the mouse, fingers, and the keyboard.

let split = 50; // per cent of the stage that show the left pane

function moveDivider(percent) {
  split = Math.min(100, Math.max(0, percent));
  const divider = element("divider");
  root.style.setProperty("--split", `${split}%`);
  divider.setAttribute("aria-valuenow", Math.round(split));
  const shares = [Math.round(split), 100 - Math.round(split)];
  const names = [state.left, state.right].map((pane) => gallery.panes[pane].name);
  divider.setAttribute("aria-valuetext", `${names[0]} ${shares[0]} %, ${names[1]} ${shares[1]} %`);
}

function watchDivider() {
  const divider = element("divider");
  const stage = element("stage");
  divider.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.stopPropagation();
    divider.setPointerCapture(event.pointerId);
  });
  divider.addEventListener("pointermove", (event) => {
    if (!divider.hasPointerCapture(event.pointerId)) return;
    event.stopPropagation();
    const r = stage.getBoundingClientRect();
    moveDivider((100 * (event.clientX - r.left)) / r.width);
  });
  divider.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 2;
    const to = {
      ArrowLeft: split - step,
      ArrowDown: split - step,
      ArrowRight: split + step,
      ArrowUp: split + step,
      PageDown: split - 10,
      PageUp: split + 10,
      Home: 0,
      End: 100,
    }[event.key];
    if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    moveDivider(to);
  });
}
