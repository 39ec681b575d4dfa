// The map drawn: what is the same in all moments once, and of each moment what is different.

const CORNERS = '<svg width="12" height="12"><path d="M1 5V1H5M7 1H11V5M11 7V11H7M5 11H1V7"/></svg>';
const DASHED = '<svg width="12" height="12"><rect x="1" y="1" width="10" height="10" stroke-dasharray="3 2"/></svg>';

class Painted extends Timed {
  // Another moment: only the tiles that are different are drawn, unless things stand elsewhere now.
  showMoment(changed) {
    this.showWords();
    if (this.layout !== this.drawnFor || !this.painted) return this.draw();
    const g = this.g;
    for (const tile of changed) this.drawTileAt(g, tile);
    if (this.large) this.drawCells(g);
    this.drawNotes(g);
    for (const tile of this.places.keys()) // a pageblock's type may change where no page does
      if (!changed.has(tile) && this.barsOf(tile) !== this.barred.get(tile)) this.drawTileAt(g, tile);
    const push = this.push;
    this.drawSide();
    if (push !== this.push) return;
    this.drawMarks();
    this.drawCursor();
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

  // What stands below the room right of the first zone makes way for what is in it.
  shift(y) {
    return this.roomy && y >= this.drawnFor.room[3] - 0.5 ? y + this.push : y;
  }

  // Put zoom, story and legend into their room, if there is one; draw again if they need more, or less.
  fitSide() {
    const { room, below } = this.drawnFor;
    if (!room) return;
    const need = Math.max(room[1] + this.side.offsetHeight, below[0] + 8 + this.legend.offsetHeight) + 8;
    const push = Math.max(0, Math.ceil(need - room[3]));
    if (push === this.push || (this.playing && push < this.push)) return;
    this.push = push;
    this.drawMap();
  }

  draw() {
    this.drawnFor = this.layout;
    const { room, below } = this.drawnFor;
    this.roomy = Boolean(room);
    this.root.classList.toggle("roomy", this.roomy);
    // Without a room they stand below the map, where left and top mean nothing.
    const put = ({ style }, x, y, w) =>
      Object.assign(style, { left: `${x}px`, top: `${y}px`, width: room ? `${w}px` : "" });
    put(this.side, ...(room ?? [0, 0, 0]));
    put(this.legend, 4, (below?.[0] ?? 0) + 8, (below?.[1] ?? 0) - 4);
    if (!room) this.push = 0;
    this.drawMap();
    this.drawSide();
  }

  drawMap() {
    const lay = this.drawnFor;
    const g = (this.g = sized(this.canvas, lay.width, lay.height + this.push));
    this.pen = sized(this.over, lay.width, lay.height + this.push);
    this.ink = sized(this.marks, lay.width, lay.height + this.push);
    this.inked = []; // what is drawn on it
    const c = (this.colour = this.colours());
    this.painted = c.paper !== ""; // no theme yet: not in the page, so drawn again when it is
    g.fillStyle = c.paper;
    g.fillRect(0, 0, lay.width, lay.height + this.push);
    this.palette = this.meta.states.map(([, token]) => rgba(c[token]));
    this.hatch = hatch(g, c);
    for (const [x, y, w, h, fill] of lay.rects) {
      g.fillStyle = fill === "hatch" ? this.hatch : c[fill];
      g.fillRect(x, this.shift(y), w, h);
    }
    this.places = new Map(lay.tiles.map(([pfn, x, y, zone]) => [pfn, [x, this.shift(y), zone]]));
    this.barred = new Map();
    for (const tile of this.places.keys()) this.drawTileAt(g, tile);
    if (this.large) this.drawCells(g);
    this.drawNotes(g);
    for (const [x, y, text, ...look] of lay.words) this.write(g, text, x, this.shift(y), ...look);
    this.drawMarks();
    this.drawCursor();
  }

  write(g, text, x, y, px, fill, bold, anchor) {
    const c = this.colour;
    g.font = `${bold ? 600 : 400} ${px}px ${c.font}`;
    g.textAlign = { start: "left", middle: "center", end: "right" }[anchor];
    if (anchor === "middle") {
      Object.assign(g, { strokeStyle: c.paper, lineWidth: 3, lineJoin: "round" });
      g.strokeText(text, x, y);
    }
    g.fillStyle = c[fill];
    g.fillText(text, x, y);
  }

  // What is said of each zone beside its name.
  drawNotes(g) {
    const lay = this.drawnFor;
    const name = Object.keys(this.meta.layouts).find((each) => this.meta.layouts[each] === lay);
    const lines = this.meta.notes[name].flat();
    lay.notes.forEach(([, x, y], i) => {
      g.fillStyle = this.colour.paper;
      g.fillRect(x - 1, this.shift(y) - 12, lay.width - x, 16);
      this.write(g, lines[i] ?? "", x, this.shift(y), 12, "ink2", false, "start");
    });
  }

  barsOf(tile) {
    return `${this.types.get(tile) ?? 1} ${this.types.get(tile + 512) ?? 1}`;
  }

  // A tile with the outlines of its free blocks and the bars of its pageblocks' types.
  drawTileAt(g, tile) {
    const place = this.places.get(tile);
    if (!place) return;
    const { px } = this.drawnFor;
    const [x, y] = place;
    this.drawTile(g, tile, x, y, px, 0, SIDE);
    if (this.only === null || this.only === FREE) {
      Object.assign(g, { strokeStyle: this.colour.freeln, lineWidth: 1 });
      for (const [frame, order] of this.blocksOf(tile)) {
        if (order < (px > 1 ? 2 : 4)) continue;
        const [col, row] = PLACES[frame];
        const [w, h] = [(1 << Math.ceil(order / 2)) * px, (1 << Math.floor(order / 2)) * px];
        g.strokeRect(x + col * px + 0.5, y + row * px + 0.5, w - 1, h - 1);
      }
    }
    this.barred.set(tile, this.barsOf(tile));
    if (px === 1) return;
    g.fillStyle = this.colour.paper;
    g.fillRect(x - 4, y, 4, SIDE * px);
    const half = 16 * px;
    for (const [first, top] of [[tile, y], [tile + 512, y + half]]) {
      const bar = this.meta.bars[this.types.get(first) ?? 1];
      if (!bar) continue;
      Object.assign(g, { strokeStyle: this.colour[bar[0]], lineWidth: 3 });
      g.setLineDash(bar[1] ? bar[1].split(" ").map(Number) : []);
      line(g, x - 2, top + 1, x - 2, top + half - 1);
    }
    g.setLineDash([]);
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

  rect(pfn, order) {
    const place = this.places.get(tileOf(pfn));
    if (!place) return null;
    const { px } = this.drawnFor;
    const [x, y] = PLACES[pfn % TILE];
    return [place[0] + x * px, place[1] + y * px, (1 << Math.ceil(order / 2)) * px, (1 << Math.floor(order / 2)) * px];
  }

  // What just happened, where a request would land, and what the zoom shows: on a canvas of its own.
  drawMarks() {
    const g = this.ink;
    const { paper, ink, ink2 } = this.colour;
    // Thirty times a second: only what was drawn is wiped off.
    for (const [x, y, w, h] of this.inked) g.clearRect(x - 7, y - 7, w + 14, h + 14);
    this.inked = [];
    const zoomed = this.zoomed;
    const at = zoomed === null || this.large ? null : this.rect(zoomed, 9);
    if (at) {
      this.inked.push(at);
      stroke(g, ink2, 1, at, 1.5);
      if (this.roomy && this.places.get(tileOf(zoomed))[2] === 0) this.drawLead(g, at[0] + at[2] / 2, ink2);
    }
    const { taken, freed, halves, largest } = this.meta.marks;
    const place = (pfn, order) => {
      const r = this.within(this.large ? this.cellRect(this.cellOf(pfn)) : this.rect(pfn, order));
      if (r) this.inked.push(r);
      return r;
    };
    if (!this.large) for (const half of halves) dashed(g, paper, ink, place(...half));
    for (const block of [taken, freed]) if (block) framed(g, paper, ink, place(...block));
    if (largest?.block) bracketed(g, paper, ink, place(...largest.block));
  }

  // Of a block at the map's right edge: so much that its frame is not cut off.
  within(r) {
    return r && [r[0], r[1], Math.min(r[2], this.drawnFor.width - 4 - r[0]), r[3]];
  }

  // From the first zone's tiles to the zoom beside them.
  drawLead(g, x, ink) {
    const [left] = this.drawnFor.room;
    const bottom = this.drawnFor.below[0];
    const top = this.drawnFor.room[1] + 44;
    this.inked.push([left - 20, top, 20, bottom - top], [0, bottom - 7, left, 14]);
    Object.assign(g, { strokeStyle: ink, lineWidth: 1 });
    g.beginPath();
    g.moveTo(x, bottom - 7);
    g.lineTo(x, bottom + 2.5);
    g.lineTo(left - 11.5, bottom + 2.5);
    g.lineTo(left - 11.5, top);
    g.lineTo(left - 2, top);
    g.stroke();
  }

  // What pointer or keys are at, and its buddy.
  drawCursor() {
    const g = this.pen;
    if (this.penned) g.clearRect(0, 0, this.drawnFor.width, this.drawnFor.height + this.push);
    const lit = this.large ? [] : (this.model.get("lit") ?? []); // a bar of FreeLists that somebody points at
    this.penned = !this.tip.hidden || this.hover !== null || this.cellHover !== null || lit.length > 0;
    const { paper, focus } = this.colour;
    for (const block of lit) {
      const r = this.rect(...block);
      if (r) stroke(g, focus, 2, r, 0);
    }
    const cell = this.cellHover ?? (this.tip.hidden ? null : this.cellCursor);
    if (this.large && cell) framed(g, paper, focus, this.cellRect(cell));
    const pfn = this.hover ?? (this.tip.hidden ? null : this.cursor);
    if (pfn === null || this.large) return;
    const block = this.blockAt(pfn);
    if (block && block[1] < 10) dashed(g, paper, focus, this.rect(buddyOf(block[0], block[1]), block[1]));
    if (block) framed(g, paper, focus, this.rect(block[0], block[1]));
    // The keys go page by page: show the page inside its block.
    if (!block || (this.hover === null && block[1] > 1)) framed(g, paper, focus, this.rect(pfn, 0));
  }

  drawLegend() {
    const { legend } = this.meta;
    const states = legend.map(([state]) => state).join();
    if (states === this.legend.dataset.states) {
      legend.forEach(([state, , , , pages], i) => {
        const button = this.legend.children[i];
        button.setAttribute("aria-pressed", String(this.only === state));
        button.querySelector(".n").textContent = pages.toLocaleString("en");
      });
      return;
    }
    this.legend.dataset.states = states;
    const had = this.legend.contains(document.activeElement) ? document.activeElement.dataset.state : null;
    const at = had ?? String(this.only ?? legend[0]?.[0]);
    const buttons = legend.map(([state, name, token, letter, pages]) => {
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
        this.drawLegend();
        this.draw();
      });
      return button;
    });
    this.legend.replaceChildren(...buttons);
    if (!buttons.some((button) => button.tabIndex === 0) && buttons.length) buttons[0].tabIndex = 0;
    if (had !== null) this.legend.querySelector(`[data-state="${had}"]`)?.focus();
  }

  // The marks in the picture, and what they mean.
  drawKey() {
    const text = JSON.stringify(this.meta.key);
    if (text === this.key.dataset.key) return;
    this.key.dataset.key = text;
    const marks = this.meta.key.map(([kind, words]) => {
      const entry = el("span", "mark");
      const swatch = el("span", `swatch ${kind}`);
      if (kind === "halves") swatch.innerHTML = DASHED;
      if (kind === "largest") swatch.innerHTML = CORNERS;
      entry.append(swatch, words);
      return entry;
    });
    this.key.replaceChildren(...marks);
  }
}
