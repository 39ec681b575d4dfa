// Maps by shares: a cell is a tile or several, taken is dark, free a light band from below, the largest free block a
// light square.

const CELL = 16;

class Large extends Side {
  get large() {
    return this.meta.shares.length > 0;
  }

  zoomStart(pfn) {
    return this.large ? tileOf(pfn) : super.zoomStart(pfn);
  }

  drawCells(g) {
    const c = this.colour;
    const shown = (state, fill) => (this.only === null || this.only === state ? fill : c.wash);
    for (const [zone, x0, y0, first, count] of this.drawnFor.cells) {
      const y = this.shift(y0);
      for (let i = 0; i < count; i++) {
        const [share, largest, , , kind] = this.meta.shares[zone][first + i];
        const x = x0 + i * (CELL + 1);
        g.fillStyle = shown(kind, kind === RESERVED ? this.hatch : c[this.meta.states[kind][1]]);
        g.fillRect(x, y, CELL, CELL);
        g.fillStyle = shown(FREE, c.free);
        g.fillRect(x, y + CELL - share, CELL, share);
        const one = this.meta.units[zone][0] === 1 && largest >= 0; // a cell of several tiles has no square
        const side = one ? Math.round(CELL * Math.sqrt(size(largest) / TILE)) : 0;
        if (!side) continue;
        g.fillRect(x, y + CELL - side, side, side);
        stroke(g, c.freeln, 1, [x, y + CELL - side, side, side], -0.5);
      }
    }
  }

  // [zone, number] of the cell that holds a frame.
  cellOf(pfn) {
    for (const [zone, [tiles, starts]] of this.meta.units.entries()) {
      const number = starts.findLastIndex((start) => start <= pfn);
      const step = tiles * TILE;
      if (number >= 0 && Math.floor(starts[number] / step) === Math.floor(pfn / step)) return [zone, number];
    }
    return null;
  }

  // [zone, number] of the cell at a place on the canvas.
  cellAt(x, y) {
    for (const [zone, left, top, first, count] of this.drawnFor.cells) {
      const i = Math.floor((x - left) / (CELL + 1));
      const low = this.shift(top);
      if (y >= low && y < low + CELL + 1 && i >= 0 && i < count) return [zone, first + i];
    }
    return null;
  }

  cellRect(cell) {
    if (!cell) return null;
    const [zone, number] = cell;
    const row = this.drawnFor.cells.find((each) => each[0] === zone && number >= each[3] && number < each[3] + each[4]);
    return row ? [row[1] + (number - row[3]) * (CELL + 1), this.shift(row[2]), CELL, CELL] : null;
  }

  cellWords([zone, number]) {
    const [tiles, starts, listed] = this.meta.units[zone];
    const [, largest, free, there] = this.meta.shares[zone][number];
    const start = starts[number];
    const parts = [
      `pfn ${start}–${(Math.floor(start / (tiles * TILE)) + 1) * tiles * TILE - 1}`,
      `zone ${this.meta.zones[zone]}`,
      `${free.toLocaleString("en")} of ${there.toLocaleString("en")} pages free`,
      largest < 0 ? "no free block" : `largest block order ${largest}`,
    ];
    if (listed) parts.push(tiles > 1 ? "Enter or click opens its first tile" : "Enter or click opens the tile");
    return parts.join(" · ");
  }

  openCell([zone, number]) {
    const [, starts, listed] = this.meta.units[zone];
    if (!listed) return this.say("too large to list its pages");
    this.askTile(starts[number]);
  }

  askTile(pfn) {
    this.model.send({ ask: "tile", pfn });
  }

  takeTile({ pfn }, [cells, orders]) {
    this.opened = { pfn, cells: bytesOf(cells), orders: bytesOf(orders) };
    if (this.pinned !== pfn) this.unpin();
    this.pinned = pfn; // which of its frames: a click in the zoom says
    this.drawSide();
  }

  // Arrows by cell and by row, Home and End in the zone; Enter opens.
  cellKey(event) {
    const { key } = event;
    const cellsOf = ([zone, , , first, count]) => Array.from({ length: count }, (_, i) => [zone, first + i]);
    const all = this.drawnFor.cells.flatMap(cellsOf);
    if (!all.length) return false;
    const same = (cell) => this.cellCursor && cell[0] === this.cellCursor[0] && cell[1] === this.cellCursor[1];
    const at = all.findIndex(same);
    const across = Math.max(...this.drawnFor.cells.map((row) => row[4]));
    const zone = all[Math.max(0, at)][0];
    const here = (cell) => cell[0] === zone;
    const ends = { Home: all.findIndex(here), End: all.findLastIndex(here) };
    const rows = { ArrowDown: across, PageDown: across, ArrowUp: -across, PageUp: -across };
    const step = { ArrowRight: 1, ArrowLeft: -1, ...rows }[key];
    let to = null;
    if (key in ends) to = ends[key];
    else if (step) to = at < 0 ? 0 : Math.max(0, Math.min(all.length - 1, at + step));
    else if ((key === "Enter" || key === "z" || key === "Z") && at >= 0) {
      if (this.pinned !== null && this.pinned === this.meta.units[zone][1][all[at][1]]) this.unpin();
      else this.openCell(all[at]);
      return true;
    } else return false;
    this.cellCursor = all[to];
    this.showCell(all[to]);
    return true;
  }

  showCell(cell) {
    const r = this.cellRect(cell);
    if (r) this.tell(this.cellWords(cell), r[0], r[1] + CELL);
  }
}
