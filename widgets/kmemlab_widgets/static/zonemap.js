// The map in the browser: draws the page states Python sends, answers pointer and keys without asking Python.
// Where everything stands is decided in Python (zonemap_layout.py); zonemap_base.js comes first in the same module.

const DASHED = '<svg width="12" height="12"><rect x="1" y="1" width="10" height="10" stroke-dasharray="3 2"/></svg>';

class ZoneMap extends Ground {
  constructor(model, root) {
    super();
    this.model = model;
    this.root = root;
    root.classList.add("kml-zonemap");
    const id = `kml-${Math.random().toString(36).slice(2)}`;
    this.head = el("p", "head");
    this.sub = el("p", "sub");
    this.stage = el("div", "stage");
    this.canvas = el("canvas", "map");
    this.over = el("canvas", "over"); // frames that follow pointer and keys: the map below is not redrawn for them
    this.tip = el("div", "tip");
    this.tip.hidden = true;
    this.stage.append(this.canvas, this.over, this.tip);
    this.zoom = el("div", "zoom");
    this.zoom.hidden = true;
    this.legend = el("div", "legend");
    this.legend.setAttribute("role", "group");
    this.legend.setAttribute("aria-label", "Show one state only");
    this.twin = Object.assign(el("div", "quiet"), { id: `${id}-twin` });
    this.help = Object.assign(el("div", "quiet", HELP), { id: `${id}-help` });
    this.live = el("div", "quiet live");
    this.live.setAttribute("aria-live", "polite");
    Object.assign(this.canvas, { tabIndex: 0, role: "application" });
    this.canvas.setAttribute("aria-roledescription", "map of page frames");
    this.canvas.setAttribute("aria-describedby", `${id}-twin ${id}-help`);
    root.append(this.head, this.sub, this.stage, this.zoom, this.legend, this.twin, this.help, this.live);
    this.only = null; // the one state the legend shows
    this.cursor = null; // the frame the keys are at
    this.hover = null; // the frame under the pointer
    this.pinned = null; // first frame of the pageblock in the zoom
    this.listen();
    this.update();
  }

  // --- what Python sent -----------------------------------------------------------------------------

  update() {
    this.meta = JSON.parse(this.model.get("meta") || "{}");
    const failed = !this.meta.layouts;
    for (const node of [this.stage, this.legend]) node.hidden = failed;
    this.root.classList.toggle("failed", failed);
    if (failed) {
      this.zoom.hidden = true;
      this.head.textContent = "";
      this.sub.textContent = this.twin.textContent = this.meta.error ?? "";
      return;
    }
    const bytes = this.model.get("cells");
    this.cells = bytes ? new Uint8Array(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength) : new Uint8Array();
    this.blocks = new Map();
    this.heads = new Set();
    const lists = new Set();
    for (const [pfn, order, mt] of this.meta.blocks) {
      this.blocks.set(pfn, [order, mt]);
      if (!lists.has(`${order} ${mt}`)) this.heads.add(pfn);
      lists.add(`${order} ${mt}`);
    }
    this.types = new Map(this.meta.types);
    // A mask is one long word: it may break behind each |.
    const words = this.meta.headline.split(/(?<=\|)/);
    this.head.replaceChildren(...words.flatMap((word) => [word, el("wbr")]));
    this.sub.textContent = this.meta.sub;
    this.twin.textContent = this.meta.twin;
    this.canvas.setAttribute("aria-label", this.meta.headline);
    this.drawLegend();
    this.draw();
  }

  // The widest that fits.
  get layout() {
    const layouts = Object.values(this.meta.layouts);
    const wide = this.root.clientWidth || Infinity;
    return layouts.find((layout) => layout.width <= wide) ?? layouts[layouts.length - 1];
  }

  // --- drawing --------------------------------------------------------------------------------------

  colours() {
    const style = getComputedStyle(this.root);
    const found = Object.fromEntries(TOKENS.map((name) => [name, style.getPropertyValue(`--kml-${name}`).trim()]));
    found.font = style.fontFamily || "sans-serif";
    return found;
  }

  draw() {
    const lay = this.layout;
    this.drawnFor = lay;
    const g = sized(this.canvas, lay.width, lay.height);
    this.pen = sized(this.over, lay.width, lay.height);
    const c = (this.colour = this.colours());
    this.painted = c.paper !== ""; // no theme yet: not in the page, so drawn again when it is
    g.fillStyle = c.paper;
    g.fillRect(0, 0, lay.width, lay.height);
    this.palette = this.meta.states.map(([, token]) => rgba(c[token]));
    this.hatch = hatch(g, c);
    for (const [x, y, w, h, fill] of lay.rects) {
      g.fillStyle = fill === "hatch" ? this.hatch : c[fill];
      g.fillRect(x, y, w, h);
    }
    this.places = new Map(lay.tiles.map(([pfn, x, y, zone]) => [pfn, [x, y, zone]]));
    for (const [pfn, x, y] of lay.tiles) this.drawTile(g, pfn, x, y, lay.px, 0, SIDE);
    this.drawOutlines(g, lay.px);
    for (const [x, y, h, fill, dash] of lay.bars) {
      Object.assign(g, { strokeStyle: c[fill], lineWidth: 3 });
      g.setLineDash(dash ? dash.split(" ").map(Number) : []);
      line(g, x, y, x, y + h);
    }
    g.setLineDash([]);
    this.drawMarks(g);
    for (const [x, y, text, px, fill, bold, anchor] of lay.words) {
      g.font = `${bold ? 600 : 400} ${px}px ${c.font}`;
      g.textAlign = { start: "left", middle: "center", end: "right" }[anchor];
      if (anchor === "middle") {
        Object.assign(g, { strokeStyle: c.paper, lineWidth: 3, lineJoin: "round" });
        g.strokeText(text, x, y);
      }
      g.fillStyle = c[fill];
      g.fillText(text, x, y);
    }
    this.drawCursor();
    this.drawZoom();
  }

  // Rows from..to of a tile. Reserved memory is left clear, over the hatch; a pressed legend entry fades the rest.
  drawTile(g, tile, x, y, px, from, to) {
    const picture = (this.scratch ??= Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE }));
    const pen = picture.getContext("2d");
    const image = pen.createImageData(SIDE, SIDE);
    const pixels = new Uint32Array(image.data.buffer);
    const wash = rgba(this.colour.wash);
    const states = this.statesOf(tile);
    for (let i = 0; i < TILE; i++) {
      const state = states[i];
      const faded = this.only !== null && state !== this.only && state !== 0;
      pixels[PIXEL[i]] = faded ? wash : state === RESERVED ? 0 : this.palette[state];
    }
    pen.putImageData(image, 0, 0);
    g.fillStyle = this.hatch;
    g.fillRect(x, y, SIDE * px, (to - from) * px);
    g.drawImage(picture, 0, from, SIDE, to - from, x, y, SIDE * px, (to - from) * px);
    if (px >= this.meta.pattern_from) patterns(g, states, x, y, px, from, to, this.only);
  }

  drawOutlines(g, px) {
    if (this.only !== null && this.only !== FREE) return;
    Object.assign(g, { strokeStyle: this.colour.freeln, lineWidth: 1 });
    for (const [pfn, [order]] of this.blocks) {
      const r = order >= (px > 1 ? 2 : 4) ? this.rect(pfn, order) : null;
      if (r) g.strokeRect(r[0] + 0.5, r[1] + 0.5, r[2] - 1, r[3] - 1);
    }
  }

  rect(pfn, order) {
    const place = this.places.get(tileOf(pfn));
    if (!place) return null;
    const { px } = this.drawnFor;
    const [x, y] = PLACES[pfn % TILE];
    return [place[0] + x * px, place[1] + y * px, (1 << Math.ceil(order / 2)) * px, (1 << Math.floor(order / 2)) * px];
  }

  drawMarks(g) {
    const { taken, freed, halves } = this.meta.marks;
    for (const half of halves) dashed(g, this.colour.paper, this.colour.ink, this.rect(...half));
    if (taken) framed(g, this.colour.paper, this.colour.ink, this.rect(...taken));
    if (freed) framed(g, this.colour.paper, this.colour.ink, this.rect(...freed));
  }

  // What pointer or keys are at, and its buddy: drawn on a canvas of its own.
  drawCursor() {
    const g = this.pen;
    g.clearRect(0, 0, this.drawnFor.width, this.drawnFor.height);
    const pfn = this.hover ?? (this.tip.hidden ? null : this.cursor);
    if (pfn === null) return;
    const { paper, focus } = this.colour;
    const block = this.blockAt(pfn);
    if (block && block[1] < 10) dashed(g, paper, focus, this.rect(buddyOf(block[0], block[1]), block[1]));
    if (block) framed(g, paper, focus, this.rect(block[0], block[1]));
    // The keys go page by page: show the page inside its block.
    if (!block || (this.hover === null && block[1] > 1)) framed(g, paper, focus, this.rect(pfn, 0));
  }

  drawLegend() {
    const had = this.legend.contains(document.activeElement) ? document.activeElement.dataset.state : null;
    const at = had ?? String(this.only ?? this.meta.legend[0]?.[0]);
    const buttons = this.meta.legend.map(([state, name, token, letter, pages]) => {
      const button = el("button");
      Object.assign(button, { type: "button", tabIndex: String(state) === at ? 0 : -1 });
      button.dataset.state = state;
      button.setAttribute("aria-pressed", String(this.only === state));
      const swatch = el("span", `swatch s${state}`, letter);
      swatch.style.setProperty("--fill", `var(--kml-${token})`);
      swatch.setAttribute("aria-hidden", "true");
      button.append(swatch, `${name} `, el("span", "n", pages.toLocaleString("en")));
      button.addEventListener("click", () => {
        this.only = this.only === state ? null : state;
        button.focus();
        this.drawLegend();
        this.draw();
      });
      return button;
    });
    const marks = this.meta.key.map(([kind, words]) => {
      const entry = el("span", "mark");
      const swatch = el("span", `swatch ${kind}`);
      if (kind === "halves") swatch.innerHTML = DASHED;
      entry.append(swatch, words);
      return entry;
    });
    this.legend.replaceChildren(...buttons, ...marks);
    if (!buttons.some((button) => button.tabIndex === 0) && buttons.length) buttons[0].tabIndex = 0;
    if (had !== null) this.legend.querySelector(`[data-state="${had}"]`)?.focus();
  }

  drawZoom() {
    this.zoom.hidden = this.pinned === null;
    if (this.pinned === null) return;
    const px = this.drawnFor.px >= 6 ? 16 : 8; // larger than on the map
    const tile = tileOf(this.pinned);
    const top = this.pinned % TILE ? 16 : 0;
    const canvas = el("canvas");
    const g = sized(canvas, SIDE * px, 16 * px);
    const c = this.colour;
    this.drawTile(g, tile, 0, 0, px, top, top + 16);
    const place = ([pfn, order]) => {
      const [x, y] = PLACES[pfn % TILE];
      return [x * px, (y - top) * px, (1 << Math.ceil(order / 2)) * px, Math.min(16, 1 << Math.floor(order / 2)) * px];
    };
    const inside = (pfn) => pfn >= this.pinned && pfn < this.pinned + 512;
    g.textAlign = "center";
    g.font = `600 11px ${c.font}`;
    let free = 0;
    for (const [pfn, [order]] of this.blocks) {
      const top10 = order === 10 && pfn === tile; // one block over both halves of the tile
      if (!inside(pfn) && !top10) continue;
      free += Math.min(512, size(order));
      const [x, y, w, h] = top10 ? [0, 0, SIDE * px, 16 * px] : place([pfn, order]);
      Object.assign(g, { strokeStyle: c.freeln, lineWidth: 1, fillStyle: c.onfree });
      g.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
      if (w >= 56 && h >= 16) g.fillText(`order ${order}`, x + w / 2, y + h / 2 + 4);
    }
    const { taken, freed, halves } = this.meta.marks;
    for (const half of halves) if (inside(half[0])) dashed(g, c.paper, c.ink, place(half));
    for (const block of [taken, freed]) {
      if (!block || !inside(block[0]) || block[1] > 9) continue;
      const [x, y, w, h] = place(block);
      Object.assign(g, { strokeStyle: c.ink, lineWidth: 2 });
      g.strokeRect(x + 1, y + 1, w - 2, h - 2);
      g.fillStyle = block === taken ? c.ontaken : c.onfree;
      if (block === taken && w >= 56 && h >= 16) g.fillText("taken", x + w / 2, y + h / 2 + 4);
    }
    const title = `Zoom: pageblock ${this.pinned}–${this.pinned + 511} (2 MiB)`;
    const type = this.meta.names[this.types.get(this.pinned) ?? 1];
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", title);
    const part = el("div");
    part.append(el("b", "", title), el("p", "", `${type} · ${free} of 512 pages free`), canvas);
    this.zoom.replaceChildren(part);
  }

  // --- pointer and keys -------------------------------------------------------------------------------

  listen() {
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const scale = this.drawnFor.width / box.width; // below 358 px the map is scaled
      return this.frameAt((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
    };
    this.canvas.addEventListener("mousemove", (event) => {
      const pfn = at(event);
      if (pfn === this.hover && pfn !== null) return;
      this.hover = pfn;
      if (pfn === null) this.hide();
      else this.show(pfn);
    });
    this.canvas.addEventListener("mouseleave", () => this.hide());
    this.canvas.addEventListener("blur", () => this.hide());
    this.canvas.addEventListener("click", (event) => {
      const pfn = at(event);
      if (pfn === null) return;
      this.cursor = pfn;
      this.pin(pfn);
    });
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Tab" || theirs(event)) return;
      event.stopPropagation();
      const done = event.target === this.canvas ? this.key(event) : this.legendKey(event);
      if (done) event.preventDefault();
    });
  }

  frameAt(x, y) {
    const { px } = this.drawnFor;
    for (const [tile, [left, top]] of this.places)
      if (x >= left && x < left + SIDE * px && y >= top && y < top + SIDE * px)
        return tile + unmorton(Math.floor((x - left) / px), Math.floor((y - top) / px));
    return null;
  }

  words(pfn) {
    const state = this.state(pfn);
    const names = this.meta.names;
    const parts = [`pfn ${pfn}`, state === FREE ? "free" : this.meta.states[state][0]];
    if (state === PCP) parts.push(`list ${names[this.cell(pfn) >> 4]}`);
    const block = this.blockAt(pfn);
    if (block) {
      const [start, order, mt] = block;
      const taken = mt === null ? "just allocated, " : "";
      parts.push(`${taken}order ${order} block ${start}–${start + size(order) - 1}`);
      if (mt !== null) parts.push(`${this.heads.has(start) ? "head of list" : "list"} ${names[mt]}`);
    }
    if (state > RESERVED) parts.push(`pageblock ${names[this.types.get(Math.floor(pfn / 512) * 512) ?? 1]}`);
    if (block && block[1] < 10) {
      const buddy = buddyOf(block[0], block[1]);
      const other = this.blocks.get(buddy);
      const kind = this.state(buddy);
      const what =
        other && other[0] === block[1] ? "free" : kind === FREE ? "split" : kind > PCP ? "in use" : this.meta.states[kind][0];
      parts.push(`buddy ${buddy} (${what})`);
    }
    return parts.join(" · ");
  }

  show(pfn) {
    const [x, y] = this.rect(pfn, 0);
    const scale = this.canvas.clientWidth / this.drawnFor.width || 1;
    this.tip.textContent = this.words(pfn);
    this.tip.hidden = false;
    this.tip.style.left = "0";
    const most = Math.max(0, this.root.clientWidth - this.tip.offsetWidth);
    this.tip.style.left = `${Math.min(x * scale + 12, most)}px`;
    this.tip.style.top = `${(y + this.drawnFor.px) * scale + 12}px`;
    this.say(this.tip.textContent);
    this.drawCursor();
  }

  hide() {
    if (this.tip.hidden && this.hover === null) return;
    this.tip.hidden = true;
    this.hover = null;
    this.drawCursor();
  }

  // At most one update in 300 ms: a pointer would read out every frame it passes.
  say(text) {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (this.live.textContent = text), 300);
  }

  pin(pfn) {
    const block = Math.floor(pfn / 512) * 512;
    this.pinned = this.pinned === block ? null : block;
    this.drawZoom();
    if (this.pinned !== null) this.zoom.scrollIntoView({ block: "nearest" });
  }

  // Out of the panel, to the notebook's cell where there is one.
  leave() {
    document.activeElement?.blur();
    this.root.closest(".jp-Cell, .jp-Notebook")?.focus();
  }

  legendKey(event) {
    if (event.key === "Escape") this.leave();
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const buttons = [...this.legend.querySelectorAll("button")];
    const i = buttons.indexOf(event.target);
    if (!step || i < 0) return false;
    const next = buttons[(i + step + buttons.length) % buttons.length];
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
    return true;
  }

  key(event) {
    const tiles = [...this.places.keys()];
    if (!tiles.length) return false;
    const { key } = event;
    if (key === "Escape") {
      if (this.tip.hidden && this.pinned === null) this.leave();
      this.pinned = null;
      this.hide();
      this.drawZoom();
      return true;
    }
    const first = this.meta.spans[0][0];
    const shown = this.meta.marks.taken?.[0];
    const start = this.cursor ?? (this.places.has(tileOf(shown ?? -1)) ? shown : first);
    const at = this.places.has(tileOf(start)) ? start : first;
    this.hover = null;
    const arrow = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[key];
    if (arrow) {
      if (this.cursor === null) this.goto(at); // the first key shows where we are
      else if (event.shiftKey) this.goto(arrow[0] + arrow[1] > 0 ? this.after(at) : this.before(at));
      else this.goto(this.neighbour(at, ...arrow));
    } else if (key === "PageDown" || key === "PageUp") this.goto(this.rowAway(at, key === "PageDown" ? 1 : -1));
    else if (key === "Home" || key === "End") this.goto(this.edge(at, key === "End"));
    else if (key === "b" || key === "B") {
      const block = this.blockAt(at);
      this.goto(block && block[1] < 10 ? buddyOf(block[0], block[1]) : at);
    } else if (key === "z" || key === "Z" || key === "Enter") {
      this.cursor = at;
      this.pin(at);
    } else return false;
    return true;
  }

  goto(pfn) {
    if (pfn === null || !this.places.has(tileOf(pfn))) return;
    this.cursor = pfn;
    this.show(pfn);
  }
}

function render({ model, el: root }) {
  const map = new ZoneMap(model, root);
  const update = () => map.update();
  model.on("change:frame", update);
  const redraw = () => {
    if (map.meta.layouts) map.draw();
  };
  const theme = new MutationObserver(redraw);
  for (const node of [document.documentElement, document.body])
    theme.observe(node, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  const size = new ResizeObserver(() => {
    if (map.meta.layouts && (map.layout !== map.drawnFor || !map.painted)) map.draw();
  });
  size.observe(root);
  // The notebook listens in the capture phase on the document and looks for this attribute, so it must be set before.
  const guard = (event) => {
    if (root.contains(event.target)) root.toggleAttribute("data-lm-suppress-shortcuts", !theirs(event));
  };
  window.addEventListener("keydown", guard, true);
  return () => {
    model.off("change:frame", update);
    theme.disconnect();
    size.disconnect();
    window.removeEventListener("keydown", guard, true);
    clearTimeout(map.saying);
  };
}

export default { render };
