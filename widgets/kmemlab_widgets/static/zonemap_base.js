// What the map stands on: geometry of Z-order tiles, how marks are painted, and what is known of a frame.
// The first of the files that make one module, behind common.js.

const SIDE = 32;
const TILE = 1024;
const [RESERVED, FREE, PCP, MOVABLE, RECLAIMABLE, SLAB] = [1, 2, 3, 4, 5, 6];
const TOKENS = (
  "paper wash ink ink2 line rule free freeln pcp pcpln mov recl slab unmov resv lost high bad badbg ok focus " +
  "onfree ontaken"
).split(" ");

const morton = (i) => {
  let x = 0;
  let y = 0;
  for (let bit = 0; bit < 5; bit++) {
    x |= ((i >> (2 * bit)) & 1) << bit;
    y |= ((i >> (2 * bit + 1)) & 1) << bit;
  }
  return [x, y];
};

const unmorton = (x, y) => {
  let i = 0;
  for (let bit = 0; bit < 5; bit++) i |= (((x >> bit) & 1) << (2 * bit)) | (((y >> bit) & 1) << (2 * bit + 1));
  return i;
};

const PLACES = Array.from({ length: TILE }, (_, i) => morton(i));
const PIXEL = PLACES.map(([x, y]) => y * SIDE + x);
const tileOf = (pfn) => Math.floor(pfn / TILE) * TILE;
const size = (order) => 2 ** order; // not 1 << order in sums: frame numbers may pass 2^31
const buddyOf = (pfn, order) => (Math.floor(pfn / size(order)) % 2 ? pfn - size(order) : pfn + size(order));

const rgba = (hex) => {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) || 0);
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
};

const line = (g, x1, y1, x2, y2) => {
  g.beginPath();
  g.moveTo(x1, y1);
  g.lineTo(x2, y2);
  g.stroke();
};

const stroke = (g, colour, width, [x, y, w, h], out) => {
  Object.assign(g, { strokeStyle: colour, lineWidth: width });
  g.strokeRect(x - out, y - out, w + 2 * out, h + 2 * out);
};

// The mark for "just now" and for where you are: 2 px with a halo of paper, outside the block.
const framed = (g, paper, ink, r) => {
  if (!r) return;
  stroke(g, paper, 4, r, 2);
  stroke(g, ink, 2, r, 1);
};

// What was split off, and buddies: dashed, inside.
const dashed = (g, paper, ink, r) => {
  if (!r) return;
  stroke(g, paper, 2, r, -1);
  g.setLineDash([3, 2]);
  stroke(g, ink, 2, r, -1);
  g.setLineDash([]);
};

// Where a request would land: four corners outside the block, a shape and not a colour.
const bracketed = (g, paper, ink, r) => {
  if (!r) return;
  const arm = Math.max(3, Math.min(9, r[2] / 3, r[3] / 3));
  const [x, y, w, h] = [r[0] - 2, r[1] - 2, r[2] + 4, r[3] + 4];
  const corners = [[x, y, 1, 1], [x + w, y, -1, 1], [x, y + h, 1, -1], [x + w, y + h, -1, -1]];
  for (const [colour, width] of [[paper, 6], [ink, 3]]) {
    Object.assign(g, { strokeStyle: colour, lineWidth: width, lineCap: "square" });
    g.beginPath();
    for (const [cx, cy, dx, dy] of corners) {
      g.moveTo(cx + dx * arm, cy);
      g.lineTo(cx, cy);
      g.lineTo(cx, cy + dy * arm);
    }
    g.stroke();
  }
  g.lineCap = "butt";
};

// Reserved memory: diagonal lines on wash.
const hatch = (g, colour) => {
  const tile = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
  const pen = tile.getContext("2d");
  pen.fillStyle = colour.wash;
  pen.fillRect(0, 0, 8, 8);
  Object.assign(pen, { strokeStyle: colour.resv, lineWidth: 1 });
  for (const x of [-8, 0, 8]) line(pen, x, 8, x + 8, 0);
  return g.createPattern(tile, "repeat");
};

// The second cue from 6 px a page on: dots M, diagonals R, uprights S.
const patterns = (g, states, x, y, px, from, to, only) => {
  Object.assign(g, { strokeStyle: "rgba(255,255,255,.5)", fillStyle: "rgba(255,255,255,.5)", lineWidth: 1 });
  const third = Math.floor(px / 3);
  states.forEach((state, i) => {
    const [col, row] = PLACES[i];
    if (state < MOVABLE || state > SLAB || row < from || row >= to) return;
    if (only !== null && state !== only) return;
    const [left, top] = [x + col * px, y + (row - from) * px];
    if (state === MOVABLE) g.fillRect(left + third, top + third, third, third);
    if (state === RECLAIMABLE) line(g, left, top + px, left + px, top);
    if (state === SLAB) g.fillRect(left + third, top, 1, px);
  });
};

// A canvas of that size in CSS pixels, sharp on any screen, and empty.
const sized = (canvas, width, height) => {
  const ratio = window.devicePixelRatio || 1;
  const g = canvas.getContext("2d");
  const [wide, tall] = [Math.floor(width * ratio), Math.floor(height * ratio)];
  if (canvas.width !== wide || canvas.height !== tall) Object.assign(canvas, { width: wide, height: tall });
  else g.clearRect(0, 0, width, height);
  canvas.style.width = `${width}px`;
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.imageSmoothingEnabled = false;
  return g;
};

const HELP =
  "Arrows: page. Shift and arrows: block. Page up, page down: row of tiles. Home, End: zone. B: buddy. " +
  "Z, Enter: zoom of the pageblock. F: next flag, whose largest request gets corner brackets. " +
  "Comma, full stop: one moment back, on. Space: play. Escape: leave.";

// What Python sent (meta, cells, orders), asked by frame; and the ways from one frame to another (places: the tiles).
class Ground {
  spanOf(pfn) {
    return this.meta.spans.find(([first, pages]) => pfn >= first && pfn < first + pages);
  }

  cell(pfn) {
    const span = this.spanOf(pfn);
    return span ? this.cells[span[2] + pfn - span[0]] : 0;
  }

  state(pfn) {
    return this.cell(pfn) & 15;
  }

  // [order, list type] of the free block that begins with a frame.
  headAt(pfn) {
    const span = this.spanOf(pfn);
    const at = span ? span[2] + pfn - span[0] : -1;
    return this.orders[at] ? [this.orders[at] - 1, this.cells[at] >> 4] : undefined;
  }

  // [first frame, order, list type] of the free block, or of the block just taken, that holds a frame.
  blockAt(pfn) {
    for (let order = 0; order < 11; order++) {
      const start = Math.floor(pfn / size(order)) * size(order);
      const found = this.headAt(start);
      if (found && found[0] >= order && pfn < start + size(found[0])) return [start, ...found];
    }
    const taken = this.meta.marks.taken;
    return taken && pfn >= taken[0] && pfn < taken[0] + size(taken[1]) ? [...taken, null] : null;
  }

  // Where Shift+arrow goes to: the block, or the run of frames in the same state in this pageblock.
  runAt(pfn) {
    const block = this.blockAt(pfn);
    if (block) return [block[0], block[0] + size(block[1])];
    const base = Math.floor(pfn / 512) * 512;
    const same = (p) => this.state(p) === this.state(pfn) && !this.blockAt(p);
    let [from, to] = [pfn, pfn + 1];
    while (from > base && same(from - 1)) from--;
    while (to < base + 512 && same(to)) to++;
    return [from, to];
  }

  // States of a tile's pages, and the free blocks that begin in it: [frame number in the tile, order].
  statesOf(tile) {
    if (this.opened?.pfn === tile) return this.opened.cells.map((cell) => cell & 15);
    const states = new Uint8Array(TILE);
    for (const [first, pages, offset] of this.meta.spans) {
      const low = Math.max(first, tile);
      const high = Math.min(first + pages, tile + TILE);
      for (let pfn = low; pfn < high; pfn++) states[pfn - tile] = this.cells[offset + pfn - first] & 15;
    }
    return states;
  }

  blocksOf(tile) {
    const found = [];
    const look = (orders, from, i, pages) => {
      for (let k = 0; k < pages; k++) if (orders[from + k]) found.push([i + k, orders[from + k] - 1]);
    };
    if (this.opened?.pfn === tile) look(this.opened.orders, 0, 0, TILE);
    for (const [first, pages, offset] of this.meta.spans) {
      const low = Math.max(first, tile);
      const high = Math.min(first + pages, tile + TILE);
      if (low < high) look(this.orders, offset + low - first, low - tile, high - low);
    }
    return found;
  }

  after(pfn) {
    const to = this.runAt(pfn)[1];
    if (this.spanOf(to)) return to;
    return this.meta.spans.find(([first]) => first >= to)?.[0] ?? null;
  }

  before(pfn) {
    const from = this.runAt(pfn)[0];
    if (this.spanOf(from - 1)) return this.runAt(from - 1)[0];
    const span = this.meta.spans.findLast(([first, pages]) => first + pages <= from);
    return span ? this.runAt(span[0] + span[1] - 1)[0] : null;
  }

  // The page beside, as drawn; at a tile's edge the nearest tile that way.
  neighbour(pfn, dx, dy) {
    const tile = tileOf(pfn);
    const [x, y] = PLACES[pfn % TILE];
    const [nx, ny] = [x + dx, y + dy];
    if (nx >= 0 && nx < SIDE && ny >= 0 && ny < SIDE) return tile + unmorton(nx, ny);
    const tiles = [...this.places.keys()];
    const next = dx ? tiles[tiles.indexOf(tile) + dx] : this.tileAway(tile, dy, true);
    return next === undefined ? null : next + unmorton((nx + SIDE) % SIDE, (ny + SIDE) % SIDE);
  }

  // The tile one row up or down, in the same column (or the last one of a shorter row).
  tileAway(tile, step, exact) {
    const [x, y] = this.places.get(tile);
    const rows = [...new Set([...this.places.values()].map((place) => place[1]))].sort((a, b) => a - b);
    let row = rows.indexOf(y) + step;
    for (; row >= 0 && row < rows.length; row += step) {
      const found = [...this.places].filter(([, place]) => place[1] === rows[row] && place[0] <= x).pop();
      if (found && (!exact || found[1][0] === x)) return found[0];
    }
    return undefined;
  }

  rowAway(pfn, step) {
    const tile = this.tileAway(tileOf(pfn), step, false);
    return tile === undefined ? pfn : tile + (pfn % TILE);
  }

  edge(pfn, last) {
    const zone = this.places.get(tileOf(pfn))[2];
    const spans = this.meta.spans.filter((span) => span[3] === zone);
    const span = last ? spans[spans.length - 1] : spans[0];
    return last ? span[0] + span[1] - 1 : span[0];
  }
}

