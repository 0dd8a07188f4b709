// What a canvas of ipycanvas lacks in the page: keys, wheel and buttons that belong to the page
// reach it, a stroke may leave and return, screens of high density are sharp, and it has a name.

function render({ model, el }) {
  const end = new AbortController();
  const listen = (target, name, work) =>
    target.addEventListener(name, work, { capture: true, passive: false, signal: end.signal });
  const stage = () => el.parentElement;
  let canvas, held = false, space = false, pan = null, view = { zoom: 1, x: 0, y: 0 };

  // ipywidgets names neither handles of sliders nor pictures: their label and their box do.
  function names(root) {
    for (const row of root.querySelectorAll(".widget-inline-hbox")) {
      const text = row.querySelector(".widget-label")?.textContent;
      for (const part of row.querySelectorAll("[role=slider], .widget-readout, input, select"))
        if (text && !part.ariaLabel) part.ariaLabel = text;
    }
    for (const part of root.querySelectorAll("select[title]")) part.ariaLabel ||= part.title;
    for (const icon of root.querySelectorAll(".widget-play .fa"))
      icon.parentElement.ariaLabel = icon.className.match(/fa-([a-z]+)/)?.[1];
    for (const group of root.querySelectorAll(".widget-toggle-buttons")) group.role = "group";
    for (const picture of root.querySelectorAll("img"))
      picture.alt = picture.parentElement.textContent.trim() || "picture";
  }

  function watchNames() {
    if (end.signal.aborted) return;
    if (!el.isConnected) return setTimeout(watchNames, 50);
    let root = el, next;
    while ((next = root.parentElement) && next.matches(".widget-box")) root = next;
    let soon;
    const later = () => (clearTimeout(soon), (soon = setTimeout(() => names(root), 100)));
    const observer = new MutationObserver(later);
    observer.observe(root, { childList: true, subtree: true, characterData: true });
    end.signal.addEventListener("abort", () => observer.disconnect());
    later();
  }

  // ipycanvas takes every key that reaches its canvas: the stage around it has the focus instead.
  function adopt() {
    if (end.signal.aborted) return;
    canvas = stage()?.querySelector("canvas");
    if (!canvas) return setTimeout(adopt, 50);
    canvas.removeAttribute("tabindex");
    canvas.focus = () => stage().focus({ preventScroll: true });
    stage().tabIndex = 0;
    stage().setAttribute("role", "application");
    canvas.setAttribute("role", "img");
    name();
    for (const [kind, work] of Object.entries({ mousedown, mousemove, mouseup, mouseout, wheel }))
      listen(stage(), kind, (event) => event.target === canvas && work(event));
    listen(stage(), "dblclick", (event) => tell("double", event));
    listen(stage(), "dragover", (event) => event.preventDefault());
    listen(stage(), "drop", (event) => give(event, event.dataTransfer?.files));
    listen(stage(), "pointermove", circle);
    listen(stage(), "pointerleave", () => (el.firstChild.style.display = "none"));
    watch();
  }

  function name() {
    for (const node of [stage(), canvas]) node.setAttribute("aria-label", model.get("label"));
  }

  function tell(event, { clientX, clientY }, more = {}) {
    const box = canvas.getBoundingClientRect();
    const x = (canvas.width * (clientX - box.left)) / box.width;
    const y = (canvas.height * (clientY - box.top)) / box.height;
    model.send({ event, x, y, ...more });
  }

  // ------------------------------------------------------------------------------------ mouse

  const stop = (event) => event.stopImmediatePropagation();
  const pass = (kind, { clientX, clientY }) =>
    canvas.dispatchEvent(new MouseEvent(kind, { clientX, clientY }));

  function mousedown(event) {
    if (event.button === 0 && !space) return void (held = true);
    stop(event);
    if ((event.button !== 1 && !space) || view.zoom === 1) return;
    event.preventDefault();
    pan = { x: event.clientX - view.x, y: event.clientY - view.y };
  }

  function mousemove(event) {
    if (!held) stop(event); // nobody asks for it
  }

  function mouseup(event) {
    if (event.button !== 0) stop(event);
  }

  function mouseout(event) {
    if (held) stop(event);
  }

  listen(window, "mousemove", (event) => {
    if (pan) return look(view.zoom, event.clientX - pan.x, event.clientY - pan.y);
    if (!held || !event.isTrusted) return;
    if (!(event.buttons & 1)) release(event);
    else if (event.target !== canvas) pass("mousemove", event);
  });
  listen(window, "mouseup", (event) => {
    if (pan) return void (pan = null);
    if (held && event.button === 0 && event.isTrusted) release(event);
  });

  function release(event) {
    if (event.type !== "mouseup" || event.target !== canvas) pass("mouseup", event);
    held = false;
  }

  // ------------------------------------------------------------------------------ zoom and pan

  function wheel(event) {
    stop(event); // and the page scrolls
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), event);
  }

  function zoom(by, { clientX, clientY }) {
    const box = stage().getBoundingClientRect();
    const next = Math.min(Math.max(view.zoom * by, 1), 8);
    const at = (point, was) => point - ((point - was) * next) / view.zoom;
    look(next, at(clientX - box.left, view.x), at(clientY - box.top, view.y));
  }

  function look(zoom, x, y) {
    const keep = (v, length) => Math.min(Math.max(v, length * (1 - zoom)), 0);
    view = { zoom, x: keep(x, stage().clientWidth), y: keep(y, stage().clientHeight) };
    canvas.style.transformOrigin = "0 0";
    canvas.style.transform = `translate(${view.x}px, ${view.y}px) scale(${zoom})`;
    clearTimeout(look.later);
    look.later = setTimeout(dense, 150);
  }

  // ---------------------------------------------------------------------------- dropped, pasted

  async function give(event, files) {
    const file = [...(files || [])].find((file) => file.type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    stop(event);
    model.send({ event: "file", name: file.name }, undefined, [await file.arrayBuffer()]);
  }

  listen(window, "paste", (event) => {
    if (canvas && document.activeElement === stage()) give(event, event.clipboardData?.files);
  });

  // --------------------------------------------------------------------------- keys and density

  listen(window, "keydown", (event) => {
    const at = event.target;
    if (!canvas || at !== stage() || event.altKey) return;
    if (event.key === " " && view.zoom > 1) return event.preventDefault(), (space = true), stop(event);
    const command = event.ctrlKey || event.metaKey;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const middle = stage().getBoundingClientRect();
    const centre = { clientX: middle.x + middle.width / 2, clientY: middle.y + middle.height / 2 };
    if (command ? !"zy".includes(key) : !model.get("takes").includes(key)) return;
    event.preventDefault();
    stop(event);
    if (key === "+") zoom(1.5, centre);
    else if (key === "-") zoom(1 / 1.5, centre);
    else if (key === "0") look(1, 0, 0);
    else model.send({ event: "key", key, shift: event.shiftKey, command });
  });

  listen(window, "keyup", (event) => event.key === " " && (space = false));
  listen(window, "blur", () => (space = false));

  function dense() {
    model.set({ density: window.devicePixelRatio || 1, zoom: view.zoom });
    model.save_changes();
  }

  function watch() {
    dense();
    const query = window.matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
    query.addEventListener("change", watch, { once: true, signal: end.signal });
  }

  function circle(event) {
    const ring = el.firstChild.style;
    const box = canvas.getBoundingClientRect(), frame = stage().getBoundingClientRect();
    const width = model.get("brush") * box.width;
    ring.display = width && event.target === canvas ? "block" : "none";
    ring.width = ring.height = `${width}px`;
    ring.left = `${event.clientX - frame.left - width / 2}px`;
    ring.top = `${event.clientY - frame.top - width / 2}px`;
  }

  if (model.get("beats")) {
    const timer = setInterval(() => model.send({ event: "alive" }), 2000);
    end.signal.addEventListener("abort", () => clearInterval(timer));
  }
  el.append(document.createElement("div"));
  model.on("change:label", name);
  watchNames();
  if (model.get("label")) adopt();
  return () => (end.abort(), model.off("change:label", name));
}

export default { render };
