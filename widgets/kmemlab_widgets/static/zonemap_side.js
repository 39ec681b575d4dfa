// Beside the map: the zoom of a pageblock, what may be done with the frame pinned there, and the last request's story.

class Side extends Ground {
  buildSide() {
    this.side = el("div", "side");
    this.zoom = el("div", "zoom");
    this.zoomTitle = el("b");
    this.zoomSub = el("p");
    this.zoomCanvas = el("canvas");
    this.zoomCanvas.setAttribute("role", "img");
    this.hands = el("div", "hands");
    this.hands.setAttribute("role", "group");
    this.hands.setAttribute("aria-label", "The frame pinned");
    this.heldWords = el("p");
    this.freeButton = Object.assign(el("button", "", "Free it"), { type: "button" });
    this.traceButton = Object.assign(el("button", "", "Trace it"), { type: "button" });
    this.hands.append(this.heldWords, this.freeButton, this.traceButton);
    this.zoom.append(this.zoomTitle, this.zoomSub, this.zoomCanvas, this.hands);
    this.story = el("div", "story");
    this.story.setAttribute("aria-live", "polite");
    this.side.append(this.zoom, this.story);
    this.pinned = null; // first frame of the pageblock (of the tile, on a map by shares) in the zoom
    this.pick = null; // the frame that was pinned
    this.held = null; // what Python says of it
    this.traced = null; // its history, in place of the story
    this.report = ""; // what the kernel said to a click
    this.freeButton.addEventListener("click", () => this.model.send({ ask: "free", pfn: this.pick }));
    this.traceButton.addEventListener("click", () => {
      if (this.traced) {
        this.traced = null;
        this.drawStory();
        this.fitSide();
      } else this.model.send({ ask: "trace", pfn: this.pick });
    });
    this.zoomCanvas.addEventListener("click", (event) => {
      const box = this.zoomCanvas.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      const px = (box.width || 1) / SIDE;
      const top = this.zoomed % TILE ? 16 : 0;
      const frame = unmorton(Math.min(31, Math.floor(x / px)), Math.min(31, Math.floor(y / px) + top));
      this.pin(tileOf(this.zoomed) + frame, true);
    });
  }

  buildFlags() {
    this.flags = el("label", "flags", "Largest request now for ");
    this.flagSelect = el("select");
    this.flags.append(this.flagSelect);
    this.flagSelect.addEventListener("change", () => this.askFlag(this.flagSelect.value));
  }

  drawFlags() {
    const names = this.present.flags ?? [];
    this.flags.hidden = !names.length;
    if (this.flagSelect.length !== names.length + 1)
      this.flagSelect.replaceChildren(new Option("off", ""), ...names.map((name) => new Option(name, name)));
    this.flagSelect.value = this.present.flag ?? "";
  }

  askFlag(flag) {
    this.flagSelect.value = flag;
    this.model.send({ ask: "flag", flag });
    this.say(flag ? `corner brackets: ${flag}` : "no corner brackets");
  }

  nextFlag() {
    const names = ["", ...(this.present.flags ?? [])];
    if (names.length > 1) this.askFlag(names[(names.indexOf(this.flagSelect.value) + 1) % names.length]);
  }

  // Pin a frame; the same frame again lets it go.
  pin(pfn, keep) {
    const block = this.zoomStart(pfn);
    const again = this.pick === pfn && this.pinned === block && !keep;
    this.pick = again ? null : pfn;
    this.pinned = again ? null : block;
    this.traced = null;
    this.report = "";
    this.askPin();
    this.drawSide();
    if (!again && !this.roomy) this.zoom.scrollIntoView({ block: "nearest" });
  }

  unpin() {
    this.pick = this.pinned = this.traced = this.held = null;
    this.report = "";
    this.drawSide();
  }

  askPin() {
    this.held = null;
    if (this.pick !== null && this.present.hands) this.model.send({ ask: "pin", pfn: this.pick });
  }

  // First frame of what the zoom shows of a frame.
  zoomStart(pfn) {
    return Math.floor(pfn / 512) * 512;
  }

  // What the zoom shows: what is pinned; else, where there is room, the last request's block.
  get zoomed() {
    if (this.pinned !== null) return this.pinned;
    const { taken, freed } = this.meta.marks;
    const block = taken ?? freed;
    return this.roomy && block && this.places.has(tileOf(block[0])) ? this.zoomStart(block[0]) : null;
  }

  drawSide() {
    this.drawZoom();
    this.drawHands();
    this.drawStory();
    this.fitSide();
  }

  drawHands() {
    this.hands.hidden = this.pick === null || !this.present.hands;
    if (this.hands.hidden) return;
    const now = this.moment === null || this.moment === this.count - 1;
    this.freeButton.hidden = !now || !this.held?.block;
    this.heldWords.textContent = this.held ? `pfn ${this.pick}: ${this.held.words}` : `pfn ${this.pick}`;
    this.traceButton.setAttribute("aria-pressed", String(this.traced !== null));
  }

  drawStory() {
    const parts = [];
    if (this.report) {
      const report = el("pre", "report", this.report);
      report.tabIndex = 0; // it may scroll
      parts.push(el("b", "", "The kernel says"), report);
    }
    let [title, lines] = this.meta.story;
    if (this.traced) {
      title = `Frame ${this.pick} in the moments kept`;
      lines = this.traced.map((words) => ["ink", words]);
      if (!lines.length) lines = [["ink2", "nothing: no call that was kept named it"]];
    }
    if (lines.length) parts.push(el("b", "", title));
    for (const [token, words] of lines) parts.push(el("p", token, words));
    const same = this.story.children.length === parts.length;
    if (same && parts.every((part, i) => part.isEqualNode(this.story.children[i]))) return;
    this.story.replaceChildren(...parts);
  }

  drawZoom() {
    const start = this.zoomed;
    this.zoom.hidden = start === null;
    if (start === null) return;
    const px = this.drawnFor.px >= 6 ? 16 : 8; // larger than on the map
    const tile = tileOf(start);
    const rows = this.large ? SIDE : 16;
    const top = start % TILE ? 16 : 0;
    const g = sized(this.zoomCanvas, SIDE * px, rows * px);
    this.zoom.style.width = `${SIDE * px}px`; // its words too: the story beside it must not move
    const c = this.colour;
    this.drawTile(g, tile, 0, 0, px, top, top + rows);
    const place = (frame, order) => {
      const [x, y] = PLACES[frame % TILE];
      const tall = Math.min(rows, 1 << Math.floor(order / 2));
      return [x * px, (y - top) * px, (1 << Math.ceil(order / 2)) * px, tall * px];
    };
    const inside = (pfn) => pfn >= start && pfn < start + rows * SIDE;
    g.textAlign = "center";
    g.font = `600 11px ${c.font}`;
    let free = 0;
    for (const [frame, order] of this.blocksOf(tile)) {
      const whole = order === 10; // one block over both halves of the tile
      if (!inside(tile + frame) && !whole) continue;
      free += Math.min(rows * SIDE, size(order));
      const [x, y, w, h] = whole ? [0, 0, SIDE * px, rows * px] : place(frame, order);
      Object.assign(g, { strokeStyle: c.freeln, lineWidth: 1, fillStyle: c.onfree });
      g.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
      if (w >= 56 && h >= 16) g.fillText(`order ${order}`, x + w / 2, y + h / 2 + 4);
    }
    const { taken, freed, halves, largest } = this.meta.marks;
    for (const [pfn, order] of halves) if (inside(pfn)) dashed(g, c.paper, c.ink, place(pfn, order));
    for (const block of [taken, freed]) {
      if (!block || !inside(block[0]) || block[1] > 9) continue;
      const [x, y, w, h] = place(...block);
      stroke(g, c.paper, 2, [x, y, w, h], -3);
      stroke(g, c.ink, 2, [x, y, w, h], -1);
      g.fillStyle = block === taken ? c.ontaken : c.onfree;
      if (block === taken && w >= 56 && h >= 16) g.fillText("taken", x + w / 2, y + h / 2 + 4);
    }
    if (largest?.block && inside(largest.block[0]) && largest.block[1] < 10) {
      const [x, y, w, h] = place(...largest.block);
      bracketed(g, c.paper, c.ink, [x + 4, y + 4, w - 8, h - 8]);
    }
    if (this.pick !== null && inside(this.pick)) {
      stroke(g, c.paper, 4, place(this.pick, 0), 1);
      stroke(g, c.focus, 2, place(this.pick, 0), 0);
    }
    const title = this.large
      ? `Zoom: tile ${start}–${start + TILE - 1} (4 MiB)`
      : `Zoom: pageblock ${start}–${start + 511} (2 MiB)`;
    this.zoomTitle.textContent = title;
    const type = this.large ? "" : `${this.meta.names[this.types.get(start) ?? 1]} · `;
    this.zoomSub.textContent = `${type}${free} of ${rows * SIDE} pages free`;
    this.zoomCanvas.setAttribute("aria-label", title);
  }
}
