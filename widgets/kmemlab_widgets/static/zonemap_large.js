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
    const { free, freeln, unmov, wash } = this.colour;
    for (const [zone, x0, y, first, count] of this.drawnFor.cells) {
      const tiles = this.meta.units[zone][0];
      for (let i = 0; i < count; i++) {
        const [share, largest] = this.meta.shares[zone][first + i];
        const x = x0 + i * (CELL + 1);
        g.fillStyle = this.only === null || this.only === 7 ? unmov : wash;
        g.fillRect(x, this.shift(y), CELL, CELL);
        g.fillStyle = this.only === null || this.only === FREE ? free : wash;
        g.fillRect(x, this.shift(y) + CELL - share, CELL, share);
        const side = largest < 0 ? 0 : Math.round(CELL * Math.sqrt(size(largest) / (TILE * tiles)));
        if (!side) continue;
        g.fillRect(x, this.shift(y) + CELL - side, side, side);
        stroke(g, freeln, 1, [x, this.shift(y) + CELL - side, side, side], -0.5);
      }
    }
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

  cellRect([zone, number]) {
    const row = this.drawnFor.cells.find((each) => each[0] === zone && number >= each[3] && number < each[3] + each[4]);
    return row ? [row[1] + (number - row[3]) * (CELL + 1), this.shift(row[2]), CELL, CELL] : null;
  }

  cellWords([zone, number]) {
    const [tiles, starts, listed] = this.meta.units[zone];
    const [, largest, free, there] = this.meta.shares[zone][number];
    const start = starts[number];
    const parts = [
      `pfn ${start}–${start + tiles * TILE - 1}`,
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
