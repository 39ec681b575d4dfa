// The map in the browser: draws the page states Python sends, answers pointer and keys without asking Python.
// Where everything stands is decided in Python (zonemap_layout.py). The last of the files that make one module.

class ZoneMap extends Painted {
  constructor(model, root) {
    super();
    this.model = model;
    this.root = root;
    root.classList.add("kml-zonemap");
    const id = `kml-${Math.random().toString(36).slice(2)}`;
    this.head = el("p", "head");
    this.badge = el("span", "badge");
    this.sub = el("p", "sub");
    this.verdict = el("p", "verdict");
    this.stage = el("div", "stage");
    this.canvas = el("canvas", "map");
    this.marks = el("canvas", "over marks"); // what just happened: changes with every moment
    this.over = el("canvas", "over cursor"); // frames that follow pointer and keys: nothing below is redrawn for them
    this.tip = el("div", "tip");
    this.tip.hidden = true;
    this.legend = el("div", "legend");
    this.legend.setAttribute("role", "group");
    this.legend.setAttribute("aria-label", "Show one state only");
    this.key = el("div", "legend keys");
    this.buildSide();
    this.buildFlags();
    this.buildTime();
    this.stage.append(this.canvas, this.marks, this.over, this.tip, this.side, this.legend);
    this.bottom = el("div", "bottom");
    this.bottom.append(this.time, this.flags);
    this.twin = Object.assign(el("div", "quiet"), { id: `${id}-twin` });
    this.help = Object.assign(el("div", "quiet", HELP), { id: `${id}-help` });
    this.live = el("div", "quiet live");
    this.live.setAttribute("aria-live", "polite");
    Object.assign(this.canvas, { tabIndex: 0, role: "application" });
    this.canvas.setAttribute("aria-roledescription", "map of page frames");
    this.canvas.setAttribute("aria-describedby", `${id}-twin ${id}-help`);
    root.append(this.head, this.sub, this.verdict, this.stage, this.key, this.bottom, this.twin, this.help, this.live);
    this.only = null; // the one state the legend shows
    this.cursor = null; // the frame the keys are at
    this.hover = null; // the frame under the pointer
    this.cellCursor = null; // the same for maps by shares: [zone, number]
    this.cellHover = null;
    this.push = 0; // px that zoom, story and legend need beyond the room that the layout gives them
    this.listen();
    this.update();
  }

  // --- what Python sent -----------------------------------------------------------------------------

  update() {
    this.present = this.meta = JSON.parse(this.model.get("meta") || "{}");
    const failed = !this.meta.layouts;
    for (const node of [this.stage, this.key, this.bottom, this.verdict]) node.hidden = failed;
    this.root.classList.toggle("failed", failed);
    if (failed) {
      this.stop();
      this.head.textContent = "";
      this.sub.textContent = this.twin.textContent = this.meta.error ?? "";
      return;
    }
    [this.cells, this.orders] = ["cells", "orders"].map((name) => bytesOf(this.model.get(name) || new Uint8Array()));
    this.toPresent();
    this.opened = this.large ? this.opened : null;
    if (this.pick !== null) {
      this.askPin();
      if (this.opened) this.askTile(this.opened.pfn);
      if (this.traced) this.model.send({ ask: "trace", pfn: this.pick });
    }
    this.report = "";
    this.badge.textContent = this.meta.badge;
    const [right, words] = this.meta.verdict ?? [true, ""];
    this.verdict.hidden = !words;
    this.verdict.className = `verdict ${right ? "ok" : "bad"}`;
    this.verdict.textContent = `${right ? "✓" : "✕"} ${words}`;
    this.drawFlags();
    this.showWords();
    this.draw();
  }

  hear(message, buffers) {
    if (message.kind === "film") this.takeFilm(message, buffers[0]);
    else if (message.kind === "tile") this.takeTile(message, buffers);
    else if (message.kind === "report") {
      this.report = message.text;
      this.drawSide();
    } else if (message.pfn === this.pick && message.kind === "pin") {
      this.held = message;
      this.drawSide();
    } else if (message.pfn === this.pick && message.kind === "trace") {
      this.traced = message.lines;
      this.drawSide();
    }
  }

  showWords() {
    const { headline, sub, twin, types, heads, verdict } = this.meta;
    this.types = new Map(types);
    this.heads = new Set(heads);
    // A mask is one long word: it may break behind each |.
    const words = headline.split(/(?<=\|)/);
    this.head.replaceChildren(...words.flatMap((word) => [word, el("wbr")]), ...(this.meta.badge ? [this.badge] : []));
    this.sub.textContent = sub;
    this.twin.textContent = verdict ? `${twin}\n${verdict[1]}.` : twin;
    this.canvas.setAttribute("aria-label", headline);
    this.drawLegend();
    this.drawKey();
  }

  // --- pointer and keys -------------------------------------------------------------------------------

  listen() {
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const scale = this.drawnFor.width / box.width; // below 358 px the map is scaled
      return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    };
    this.canvas.addEventListener("mousemove", (event) => {
      if (this.large) {
        const cell = (this.cellHover = this.cellAt(...at(event)));
        if (cell === null) this.hide();
        else this.showCell(cell);
        return;
      }
      const pfn = this.frameAt(...at(event));
      if (pfn === this.hover && pfn !== null) return;
      this.hover = pfn;
      if (pfn === null) this.hide();
      else this.show(pfn);
    });
    this.canvas.addEventListener("mouseleave", () => this.hide());
    this.canvas.addEventListener("blur", () => this.hide());
    this.canvas.addEventListener("click", (event) => {
      if (this.large) {
        this.cellCursor = this.cellAt(...at(event)) ?? this.cellCursor;
        if (this.cellCursor) this.openCell(this.cellCursor);
        return;
      }
      const pfn = this.frameAt(...at(event));
      if (pfn === null) return;
      this.cursor = pfn;
      this.pin(pfn);
    });
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Tab" || theirs(event)) return;
      event.stopPropagation();
      const done = event.target === this.canvas ? this.mapKey(event) : this.partKey(event);
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
      const other = this.headAt(buddy);
      const kind = this.state(buddy);
      const what =
        other?.[0] === block[1] ? "free" : kind === FREE ? "split" : kind > PCP ? "in use" : this.meta.states[kind][0];
      parts.push(`buddy ${buddy} (${what})`);
    }
    return parts.join(" · ");
  }

  show(pfn) {
    const [x, y] = this.rect(pfn, 0);
    this.tell(this.words(pfn), x, y + this.drawnFor.px);
  }

  // Words at a place on the map, and to those who do not see it.
  tell(words, x, y) {
    const scale = this.canvas.clientWidth / this.drawnFor.width || 1;
    this.tip.textContent = words;
    this.tip.hidden = false;
    this.tip.style.left = "0";
    const most = Math.max(0, this.root.clientWidth - this.tip.offsetWidth);
    this.tip.style.left = `${Math.min(x * scale + 12, most)}px`;
    this.tip.style.top = `${y * scale + 12}px`;
    this.say(words);
    this.drawCursor();
  }

  hide() {
    if (this.tip.hidden && this.hover === null && this.cellHover === null) return;
    this.tip.hidden = true;
    this.hover = this.cellHover = null;
    this.drawCursor();
  }

  // At most one update in 300 ms: a pointer would read out every frame it passes.
  say(text) {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (this.live.textContent = text), 300);
  }

  // Out of the panel, to the notebook's cell where there is one.
  leave() {
    document.activeElement?.blur();
    this.root.closest(".jp-Cell, .jp-Notebook")?.focus();
  }

  // Keys of all parts: time and flags. True if it was one of them.
  anyKey({ key }) {
    if (key === "," || key === ".") this.step(key === "." ? 1 : -1);
    else if (key === "f" || key === "F") this.nextFlag();
    else return false;
    return true;
  }

  partKey(event) {
    if (event.target === this.flagSelect) return false; // letters choose there
    if (event.key === "Escape") {
      if (this.hands.contains(event.target)) {
        this.unpin();
        this.canvas.focus();
      } else this.leave();
      return true;
    }
    if (this.anyKey(event)) return true;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const buttons = [...this.legend.querySelectorAll("button")];
    const i = buttons.indexOf(event.target);
    if (!step || i < 0) return false;
    const next = buttons[(i + step + buttons.length) % buttons.length];
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
    return true;
  }

  mapKey(event) {
    const { key } = event;
    if (key === "Escape") {
      if (this.tip.hidden && this.pinned === null) this.leave();
      this.hide();
      if (this.pinned !== null) this.unpin();
      return true;
    }
    if (key === " ") {
      this.toggle();
      return true;
    }
    if (this.anyKey(event)) return true;
    if (this.large) return this.cellKey(event);
    const tiles = [...this.places.keys()];
    if (!tiles.length) return false;
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

function render({ model, el: root, show }) {
  const map = new ZoneMap(model, root);
  show?.(map); // for tests
  const update = () => map.update();
  const hear = (message, buffers) => map.hear(message, buffers);
  model.on("change:frame", update);
  model.on("msg:custom", hear);
  const light = () => map.drawnFor && map.drawCursor();
  model.on("change:lit", light);
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
  const release = keepKeys(root);
  return () => {
    model.off("change:frame", update);
    model.off("msg:custom", hear);
    model.off("change:lit", light);
    map.stop();
    theme.disconnect();
    size.disconnect();
    release();
    clearTimeout(map.saying);
  };
}

export default { render };
