// The map in the browser: draws the page states Python sends, answers pointer and keys without asking Python.
// A tile is 1024 frames, 32 x 32 in Z-order; where tiles stand is decided in Python (zonemap_layout.py).

const SIDE = 32;
const TILE = 1024;
const FREE = 2;
const PCP = 3;
const RESERVED = 1;
const TYPES = ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate"];
const BARS = { 0: ["unmov", []], 2: ["recl", [4, 2]], 3: ["high", [1, 2]], 4: ["resv", []] };

const el = (tag, cls, text) => {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  if (text !== undefined) node.textContent = text;
  return node;
};

export const morton = (i) => {
  let x = 0;
  let y = 0;
  for (let bit = 0; bit < 5; bit++) {
    x |= ((i >> (2 * bit)) & 1) << bit;
    y |= ((i >> (2 * bit + 1)) & 1) << bit;
  }
  return [x, y];
};

export const unmorton = (x, y) => {
  let i = 0;
  for (let bit = 0; bit < 5; bit++) i |= (((x >> bit) & 1) << (2 * bit)) | (((y >> bit) & 1) << (2 * bit + 1));
  return i;
};

const PLACES = Array.from({ length: TILE }, (_, i) => morton(i));

const blockSize = (order) => [1 << Math.ceil(order / 2), 1 << Math.floor(order / 2)];

class Map_ {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    root.classList.add("kml-zonemap");
    this.head = el("p", "head");
    this.sub = el("p", "sub");
    this.canvas = el("canvas", "map");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.tip = el("div", "tip");
    this.tip.hidden = true;
    this.zoom = el("div", "zoom");
    this.zoom.hidden = true;
    this.legend = el("div", "legend");
    this.twin = el("div", "quiet");
    this.twin.id = `kml-twin-${Math.random().toString(36).slice(2)}`;
    this.canvas.setAttribute("aria-describedby", this.twin.id);
    this.live = el("div", "quiet");
    this.live.setAttribute("aria-live", "polite");
    root.append(this.head, this.sub, this.canvas, this.tip, this.zoom, this.legend, this.twin, this.live);
    this.only = null; // the one state the legend shows
    this.cursor = null; // the frame the keys are at
    this.pinned = null; // first frame of the pageblock in the zoom
    this.listen();
    this.update();
  }

  // --- what Python sent -----------------------------------------------------------------------------

  update() {
    this.meta = JSON.parse(this.model.get("meta") || "{}");
    const bytes = this.model.get("cells");
    this.cells = bytes ? new Uint8Array(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength) : new Uint8Array();
    if (this.meta.error) {
      this.head.textContent = "";
      this.sub.replaceChildren(el("div", "error", this.meta.error));
      return;
    }
    this.blocks = new Map(this.meta.blocks.map(([pfn, order, mt]) => [pfn, [order, mt]]));
    this.types = new Map(this.meta.types);
    this.head.textContent = this.meta.headline;
    this.sub.textContent = this.meta.sub;
    this.twin.textContent = this.meta.twin;
    this.canvas.setAttribute("aria-label", this.meta.headline);
    this.drawLegend();
    this.draw();
  }

  state(pfn) {
    for (const [first, pages, offset] of this.meta.spans)
      if (pfn >= first && pfn < first + pages) return this.cells[offset + pfn - first];
    return 0;
  }

  blockAt(pfn) {
    for (let order = 0; order < 11; order++) {
      const start = Math.floor(pfn / (1 << order)) * (1 << order);
      const found = this.blocks.get(start);
      if (found && found[0] >= order) return [start, ...found];
    }
    return null;
  }

  get layout() {
    return this.root.clientWidth && this.root.clientWidth < 560 ? this.meta.narrow : this.meta.wide;
  }

  // --- drawing --------------------------------------------------------------------------------------

  colours() {
    const style = getComputedStyle(this.root);
    return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--kml-${name}`).trim() });
  }

  draw() {
    const lay = this.layout;
    this.drawnFor = lay;
    const ratio = window.devicePixelRatio || 1;
    const { canvas } = this;
    canvas.width = lay.width * ratio;
    canvas.height = lay.height * ratio;
    canvas.style.width = `${lay.width}px`;
    canvas.style.height = `${lay.height}px`;
    const g = canvas.getContext("2d");
    g.scale(ratio, ratio);
    g.imageSmoothingEnabled = false;
    const colour = this.colours();
    this.painted = colour.paper !== ""; // no theme yet: not in the page, so drawn again when it is
    g.fillStyle = colour.paper;
    g.fillRect(0, 0, lay.width, lay.height);
    this.palette = this.meta.states.map(([, token]) => rgb(colour[token]));
    this.wash = rgb(colour.wash);
    this.places = new Map();
    for (const group of lay.groups) this.drawGroup(g, lay, group, colour);
    this.drawOutlines(g, lay, colour);
    this.drawMarks(g, lay, colour);
    this.still = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    this.still.getContext("2d").drawImage(canvas, 0, 0);
    this.drawCursor();
    this.drawZoom();
  }

  // What moves with the pointer is drawn over a copy of the rest: a mouse sends more events than a map redraws.
  drawCursor() {
    const g = this.canvas.getContext("2d");
    g.save();
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.drawImage(this.still, 0, 0);
    g.restore();
    if (this.cursor === null) return;
    const colour = this.colours();
    const block = this.blockAt(this.cursor);
    this.frame(g, colour, block ? this.rect(block[0], block[1]) : this.rect(this.cursor, 0), colour.focus);
    const buddy = block && block[1] < 10 ? this.rect(block[0] ^ (1 << block[1]), block[1]) : null;
    if (!buddy) return;
    g.setLineDash([2, 2]);
    g.strokeRect(buddy[0] + 1, buddy[1] + 1, buddy[2] - 2, buddy[3] - 2);
    g.setLineDash([]);
  }

  drawGroup(g, lay, group, colour) {
    g.textAlign = "start";
    g.fillStyle = colour.ink;
    g.font = "600 13px system-ui, sans-serif";
    g.fillText(group.name, 0, group.y);
    g.font = "12px system-ui, sans-serif";
    g.fillStyle = colour.ink2;
    g.fillText(group.note, group.note_x, group.note_y, lay.width - group.note_x);
    const said = this.meta.marks.failed[group.name];
    if (said) {
      g.fillStyle = colour.bad;
      g.fillRect(lay.width - 4, group.y - 10, 4, 14);
    }
    if (group.share !== null) {
      const wide = lay.width - lay.left - 4;
      g.fillStyle = colour.unmov;
      g.fillRect(lay.left, group.y + 10, wide, 18);
      g.fillStyle = colour.free;
      g.fillRect(lay.left, group.y + 10, wide * group.share, 18);
    }
    for (const row of group.rows) {
      g.font = "11px system-ui, sans-serif";
      g.fillStyle = colour.ink2;
      g.textAlign = "end";
      g.fillText(row.label, lay.left - 8, row.y + 12);
      g.textAlign = "start";
      if (row.text) g.fillText(row.text, lay.left + 4, row.y + 12);
      row.tiles.forEach((tile, i) => this.drawTile(g, lay, tile, lay.left + i * lay.pitch, row.y, colour));
    }
  }

  drawTile(g, lay, tile, x, y, colour) {
    this.places.set(tile, [x, y]);
    g.drawImage(this.picture(tile), x, y, SIDE * lay.px, SIDE * lay.px);
    for (const half of [0, 512]) {
      const bar = BARS[this.types.get(tile + half)];
      if (!bar) continue;
      g.strokeStyle = colour[bar[0]];
      g.lineWidth = 3;
      g.setLineDash(bar[1]);
      const top = y + (half / 512) * 16 * lay.px;
      line(g, x - 2, top + 1, x - 2, top + 16 * lay.px - 1);
      g.setLineDash([]);
    }
  }

  // One pixel a page; reserved memory is hatched, and with a legend entry pressed all else fades.
  picture(tile) {
    const canvas = this.scratch ?? (this.scratch = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE }));
    const g = canvas.getContext("2d");
    const image = g.createImageData(SIDE, SIDE);
    for (let i = 0; i < TILE; i++) {
      const state = this.state(tile + i) & 15;
      const [x, y] = PLACES[i];
      let c = this.palette[state];
      if (state === RESERVED && (x + y) % 4) c = this.wash;
      if (this.only !== null && state !== this.only && state !== 0) c = this.wash;
      const at = 4 * (y * SIDE + x);
      [image.data[at], image.data[at + 1], image.data[at + 2]] = c;
      image.data[at + 3] = 255;
    }
    g.putImageData(image, 0, 0);
    return canvas;
  }

  rect(pfn, order) {
    const place = this.places.get(Math.floor(pfn / TILE) * TILE);
    if (!place) return null;
    const { px } = this.drawnFor;
    const [x, y] = morton(pfn % TILE);
    const [w, h] = blockSize(order);
    return [place[0] + x * px, place[1] + y * px, w * px, h * px];
  }

  drawOutlines(g, lay, colour) {
    g.strokeStyle = colour.freeln;
    g.lineWidth = 1;
    for (const [pfn, [order]] of this.blocks) {
      const r = order >= 2 && this.only === null ? this.rect(pfn, order) : null;
      if (r) g.strokeRect(r[0] + 0.5, r[1] + 0.5, r[2] - 1, r[3] - 1);
    }
  }

  drawMarks(g, lay, colour) {
    const { taken, halves } = this.meta.marks;
    g.lineWidth = 2;
    g.strokeStyle = colour.ink;
    g.setLineDash([3, 2]);
    for (const [pfn, order] of halves) {
      const r = this.rect(pfn, order);
      if (r) g.strokeRect(r[0] + 1, r[1] + 1, r[2] - 2, r[3] - 2);
    }
    g.setLineDash([]);
    if (taken) this.frame(g, colour, this.rect(...taken), colour.ink);
  }

  frame(g, colour, r, ink) {
    if (!r) return;
    g.lineWidth = 2;
    g.strokeStyle = colour.paper;
    g.strokeRect(r[0] - 3, r[1] - 3, r[2] + 6, r[3] + 6);
    g.strokeStyle = ink;
    g.strokeRect(r[0] - 1, r[1] - 1, r[2] + 2, r[3] + 2);
  }

  drawLegend() {
    const had = this.legend.contains(document.activeElement) ? document.activeElement.dataset.state : null;
    this.legend.replaceChildren(
      ...this.meta.legend.map(([state, name, token, letter, n]) => {
        const button = el("button");
        button.type = "button";
        button.dataset.state = state;
        button.setAttribute("aria-pressed", String(this.only === state));
        const swatch = el("span", "swatch", letter);
        swatch.style.background = `var(--kml-${token})`;
        if (state === PCP) swatch.style.color = "var(--kml-onfree)";
        swatch.setAttribute("aria-hidden", "true");
        button.append(swatch, `${name} `, el("span", "", n.toLocaleString("en")));
        button.addEventListener("click", () => {
          this.only = this.only === state ? null : state;
          this.drawLegend();
          this.draw();
        });
        return button;
      }),
    );
    if (had !== null) this.legend.querySelector(`[data-state="${had}"]`)?.focus();
  }

  drawZoom() {
    this.zoom.hidden = this.pinned === null;
    if (this.pinned === null) return;
    const px = this.drawnFor === this.meta.wide ? 16 : 8;
    const canvas = el("canvas");
    canvas.width = SIDE * px;
    canvas.height = 16 * px;
    const g = canvas.getContext("2d");
    g.imageSmoothingEnabled = false;
    const colour = this.colours();
    const tile = Math.floor(this.pinned / TILE) * TILE;
    const top = this.pinned % TILE ? 16 : 0;
    g.drawImage(this.picture(tile), 0, top, SIDE, 16, 0, 0, SIDE * px, 16 * px);
    g.font = "600 11px system-ui, sans-serif";
    g.textAlign = "center";
    g.strokeStyle = colour.freeln;
    for (const [pfn, [order]] of this.blocks) {
      if (pfn < this.pinned || pfn >= this.pinned + 512) continue;
      const [x, y] = morton(pfn % TILE);
      const [w, h] = blockSize(order);
      g.strokeRect(x * px + 0.5, (y - top) * px + 0.5, w * px - 1, Math.min(h, 16) * px - 1);
      g.fillStyle = colour.onfree;
      if (order >= 4) g.fillText(`order ${order}`, (x + w / 2) * px, (y - top + Math.min(h, 16) / 2) * px + 4);
    }
    const type = TYPES[this.types.get(this.pinned) ?? 1];
    const words = el("b", "", `Zoom: pageblock ${this.pinned}–${this.pinned + 511} (2 MiB), ${type}`);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", words.textContent);
    const part = el("div");
    part.append(words, canvas);
    this.zoom.replaceChildren(part);
  }

  // --- pointer and keys -------------------------------------------------------------------------------

  listen() {
    this.canvas.addEventListener("mousemove", (event) => {
      const pfn = this.frameAt(event.offsetX, event.offsetY);
      if (pfn === null) this.hide();
      else this.show(pfn, event.offsetX, event.offsetY);
    });
    this.canvas.addEventListener("mouseleave", () => this.hide());
    this.canvas.addEventListener("click", (event) => {
      const pfn = this.frameAt(event.offsetX, event.offsetY);
      if (pfn !== null) this.pin(pfn);
    });
    this.root.addEventListener("keydown", (event) => {
      if (event.key !== "Tab") event.stopPropagation();
      if (event.target === this.canvas && this.key(event)) event.preventDefault();
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
    const cell = this.state(pfn);
    const [name] = this.meta.states[cell & 15];
    const parts = [`pfn ${pfn}`, name];
    const block = this.blockAt(pfn);
    if (block) {
      const [start, order, mt] = block;
      parts.push(`order ${order} block ${start}–${start + (1 << order) - 1}`, `list ${TYPES[mt]}`);
      if (order < 10) {
        const buddy = start ^ (1 << order);
        const other = this.blocks.get(buddy);
        parts.push(`buddy ${buddy} (${other && other[0] === order ? "free" : (this.state(buddy) & 15) === FREE ? "split" : "in use"})`);
      }
    }
    parts.push(`pageblock ${TYPES[this.types.get(Math.floor(pfn / 512) * 512) ?? 1]}`);
    return parts.join(" · ");
  }

  show(pfn, x, y) {
    this.cursor = pfn;
    this.tip.textContent = this.words(pfn);
    this.tip.hidden = false;
    const box = this.canvas;
    this.tip.style.left = `${box.offsetLeft + Math.min(x + 12, Math.max(0, this.root.clientWidth - 250))}px`;
    this.tip.style.top = `${box.offsetTop + y + 16}px`;
    this.say(this.tip.textContent);
    this.drawCursor();
  }

  hide() {
    if (this.tip.hidden && this.cursor === null) return;
    this.tip.hidden = true;
    this.cursor = null;
    this.drawCursor();
  }

  say(text) {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (this.live.textContent = text), 300);
  }

  pin(pfn) {
    const block = Math.floor(pfn / 512) * 512;
    this.pinned = this.pinned === block ? null : block;
    this.drawZoom();
  }

  goto(pfn) {
    const tile = Math.floor(pfn / TILE) * TILE;
    if (!this.places.has(tile)) return;
    const r = ((this.cursor = pfn), this.rect(pfn, 0));
    this.show(pfn, r[0], r[1]);
  }

  key(event) {
    const tiles = [...this.places.keys()];
    if (!tiles.length) return false;
    if (event.key === "Escape") {
      this.pinned = null;
      this.hide();
      return true;
    }
    const first = tiles[0];
    const at = this.cursor ?? this.meta.marks.taken?.[0] ?? first;
    const tile = Math.floor(at / TILE) * TILE;
    const i = tiles.indexOf(tile);
    const [x, y] = morton(at % TILE);
    const block = this.blockAt(at);
    const arrows = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    if (arrows[event.key]) {
      if (this.cursor === null) this.goto(at);
      else if (event.shiftKey) {
        const forward = event.key === "ArrowRight" || event.key === "ArrowDown";
        this.goto(forward ? (block ? block[0] + (1 << block[1]) : at + 1) : (block ? block[0] : at) - 1);
      } else {
        const nx = x + arrows[event.key][0];
        const ny = y + arrows[event.key][1];
        if (nx >= 0 && nx < SIDE && ny >= 0 && ny < SIDE) this.goto(tile + unmorton(nx, ny));
        else if (ny === y && tiles[i + Math.sign(nx - x)] !== undefined)
          this.goto(tiles[i + Math.sign(nx - x)] + unmorton(nx < 0 ? SIDE - 1 : 0, y));
      }
      return true;
    }
    const across = this.drawnFor === this.meta.wide ? 12 : 4;
    const jumps = {
      PageDown: () => tiles[Math.min(tiles.length - 1, i + across)] + (at % TILE),
      PageUp: () => tiles[Math.max(0, i - across)] + (at % TILE),
      Home: () => first,
      End: () => tiles[tiles.length - 1] + TILE - 1,
      b: () => (block && block[1] < 10 ? block[0] ^ (1 << block[1]) : at),
    };
    const jump = jumps[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (jump) {
      this.goto(jump());
      return true;
    }
    if (event.key === "z" || event.key === "Z" || event.key === "Enter") {
      this.pin(at);
      return true;
    }
    return false;
  }
}

const line = (g, x1, y1, x2, y2) => {
  g.beginPath();
  g.moveTo(x1, y1);
  g.lineTo(x2, y2);
  g.stroke();
};

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) || 0);

function render({ model, el: root }) {
  const map = new Map_(model, root);
  const update = () => map.update();
  model.on("change:frame", update);
  const theme = new MutationObserver(() => map.meta.error || map.draw());
  for (const node of [document.documentElement, document.body])
    theme.observe(node, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  const size = new ResizeObserver(() => {
    if (!map.meta.error && (map.layout !== map.drawnFor || !map.painted)) map.draw();
  });
  size.observe(root);
  return () => {
    model.off("change:frame", update);
    theme.disconnect();
    size.disconnect();
  };
}

export default { render };
