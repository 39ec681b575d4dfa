// Watermarks in the browser: Python sends the samples and what does not move; the curve, a part of it seen larger, and
// the values under the pointer are answered here.

const SVG = "http://www.w3.org/2000/svg";
const shape = (tag, attributes, text) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
const number = (n) => String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, ",");
const plural = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;

// A sample's fields, as kmemlab.watermarks.Sample has them.
const [ASKED, GOT, FREE, MIN, LOW, HIGH, BOOST, KSWAPD, DIRECT, OOM, MS] = Array.from({ length: 11 }, (_, i) => i);
const MARKS = [[MIN, "min", ""], [LOW, "low", "7 4"], [HIGH, "high", "1.5 4"]];

// Marks and counters come as rows (number of the sample, what it is from there on).
const unpacked = ({ rows, rest }) => {
  let next = 0;
  let now = [];
  return rows.map(([asked, got, free, ms = 0], i) => {
    if (rest[next]?.[0] === i) now = rest[next++].slice(1);
    return [asked, got, free, ...now, ms];
  });
};

// The same as watermarks_draw.ticks and watermarks_draw.spread.
const ticks = (lo, hi) => {
  for (let power = 0; power < 12; power++)
    for (const lead of [1, 2, 5]) {
      const step = lead * 10 ** power;
      if ((hi - lo) / step > 5) continue;
      const first = Math.ceil(lo / step);
      return Array.from({ length: Math.floor(hi / step) - first + 1 }, (_, i) => (first + i) * step);
    }
  return [lo, hi];
};
const spread = (middles, height, top, bottom) => {
  const at = [];
  for (const middle of middles) at.push(Math.max(at.length ? at.at(-1) + height : top, middle - height / 2));
  for (let i = at.length - 1, edge = bottom; i >= 0; edge = at[i--]) at[i] = Math.min(at[i], edge - height);
  return at;
};

// One curve: the part of it that is seen, the sample under the cursor, its hands below the picture.
class Curve {
  constructor(panel, index) {
    this.panel = panel;
    this.index = index;
    this.hand = el("div", "hand");
    this.said = el("div", "said");
    for (const [name, value] of Object.entries({ tabindex: 0, role: "slider", "aria-valuemin": 0 })) this.said.setAttribute(name, value);
    const button = (words, label, act) => {
      const node = Object.assign(el("button", "", words), { type: "button" });
      if (label) node.setAttribute("aria-label", label);
      node.addEventListener("click", act);
      return node;
    };
    this.closer = button("+", "see less of the curve, larger", () => this.zoom(0.5));
    this.wider = button("−", "see more of the curve", () => this.zoom(2));
    this.whole = button("whole curve", "", () => this.see(null));
    this.hand.append(this.closer, this.wider, this.whole, this.said);
  }

  update(run) {
    const grew = !this.run || this.at >= this.run.rows.length - 1; // the cursor stands at the end, and stays there
    this.run = { ...run, rows: unpacked(run) };
    const last = run.rows.length - 1;
    if (grew || this.at > last) this.at = last;
    this.xs = run.rows.map((row) => row[this.panel.x]);
    if (this.span && (this.span[0] < this.xs[0] || this.span[1] > this.xs.at(-1))) this.span = null;
    this.said.setAttribute("aria-label", `${run.title}: values along the curve`);
    this.said.setAttribute("aria-valuemax", last);
  }

  place(width) {
    const at = this.panel.data.places[width][this.index];
    const [lo, hi] = this.span ?? [at.lo, at.hi];
    return {
      ...at, lo, hi,
      x: (value) => at.left + ((value - lo) / (hi - lo)) * (at.right - at.left),
      y: (pages) => at.bottom - (Math.max(0, Math.min(pages, at.most)) / at.most) * (at.bottom - at.top),
    };
  }

  // Index of the sample nearest to a value of x, the later one of equals.
  nearest(value) {
    let [low, high] = [0, this.xs.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.xs[middle] <= value) low = middle;
      else high = middle - 1;
    }
    return low + 1 < this.xs.length && this.xs[low + 1] - value < value - this.xs[low] ? low + 1 : low;
  }

  // --- what is drawn ---------------------------------------------------------------------------------

  draw(width, layer) {
    const at = this.place(width);
    const { rows } = this.run;
    const inside = rows.map((_, i) => i).filter((i) => this.xs[i] >= at.lo && this.xs[i] <= at.hi);
    const before = Math.max(0, this.xs.findLastIndex((x) => x <= at.lo));
    for (const [mark, name, dash] of MARKS)
      layer.append(shape("path", { class: name, d: this.steps(at, mark, before, inside), fill: "none", stroke: "var(--kml-ink)", "stroke-width": 1.5, "stroke-dasharray": dash }));
    layer.append(shape("path", { class: "free", d: this.line(at, inside), fill: "none", stroke: "var(--kml-accent)", "stroke-width": 2 }));
    const rises = (count) => [...new Set(inside.filter((i) => i && rows[i][count] > rows[i - 1][count]).map((i) => Math.round(at.x(this.xs[i]))))];
    for (const [name, count, path, look] of [
      ["kswapd", KSWAPD, "v14", { fill: "none", stroke: "var(--kml-accent)", "stroke-width": 4 }],
      ["direct", DIRECT, "l-5 11h10z", { fill: "var(--kml-wait)" }],
      ["oom", OOM, "m-4 2l8 8m0-8l-8 8", { fill: "none", stroke: "var(--kml-bad)", "stroke-width": 2 }],
    ])
      if (at[name]) layer.append(shape("path", { class: name, d: rises(count).map((x) => `M${x} ${at[name]}${path}`).join(""), ...look }));
    this.scale(at, layer, rows[before]);
    this.boost(at, layer, inside);
    this.ring(at, layer);
    const cursor = shape("g", { class: "cursor" });
    cursor.append(
      shape("line", { y1: at.top - 8, y2: at.bottom, stroke: "var(--kml-ink)" }),
      shape("circle", { r: 4, fill: "var(--kml-paper)", stroke: "var(--kml-ink)", "stroke-width": 2 }),
    );
    const brush = shape("rect", { class: "brush", y: at.top - 8, height: at.bottom - at.top + 8, fill: "var(--kml-accent)", "fill-opacity": 0.2, width: 0 });
    layer.append(brush, cursor);
    layer.cursor = cursor;
    layer.brush = brush;
    this.point(width, layer);
  }

  // The curve inside the span, from edge to edge.
  line(at, inside) {
    const level = (value) => {
      const right = this.xs.findIndex((x) => x >= value);
      const left = Math.max(0, right - 1);
      if (right < 0) return this.run.rows.at(-1)[FREE];
      const part = this.xs[right] === this.xs[left] ? 1 : (value - this.xs[left]) / (this.xs[right] - this.xs[left]);
      return this.run.rows[left][FREE] + part * (this.run.rows[right][FREE] - this.run.rows[left][FREE]);
    };
    const points = inside.map((i) => [this.xs[i], this.run.rows[i][FREE]]);
    if (!inside.length || this.xs[inside[0]] > at.lo) points.unshift([at.lo, level(at.lo)]);
    if (points.at(-1)[0] < at.hi) points.push([at.hi, level(at.hi)]);
    return `M${points.map(([x, free]) => `${at.x(x).toFixed(1)} ${at.y(free).toFixed(1)}`).join("L")}`;
  }

  steps(at, mark, before, inside) {
    let level = this.run.rows[before][mark];
    let path = `M${at.left} ${at.y(level).toFixed(1)}`;
    for (const i of inside) {
      if (this.run.rows[i][mark] === level) continue;
      level = this.run.rows[i][mark];
      path += `H${at.x(this.xs[i]).toFixed(1)}V${at.y(level).toFixed(1)}`;
    }
    return `${path}H${at.right}`;
  }

  scale(at, layer, first) {
    let edge = 0;
    for (const tick of ticks(at.lo, at.hi)) {
      const [x, words] = [at.x(tick), number(tick)];
      const wide = words.length * 7; // px of 11 px digits in the widest font
      const left = Math.min(x - wide / 2, at.right + 8 - wide);
      layer.append(shape("line", { x1: x, x2: x, y1: at.bottom, y2: at.bottom + 4, stroke: "var(--kml-line)" }));
      if (left <= edge) continue; // it would cover the number before it
      layer.append(shape("text", { x: left + wide / 2, y: at.ticks, "font-size": 11, fill: "var(--kml-ink)", "text-anchor": "middle" }, words));
      edge = left + wide + 6;
    }
    if (!at.labels) return;
    const down = [...MARKS].reverse();
    const tops = spread(down.map(([mark]) => at.y(first[mark])), 14, at.top, at.bottom - 6);
    down.forEach(([mark, name], i) =>
      layer.append(shape("text", { class: "level", x: at.left - 8, y: tops[i] + 11, "font-size": 11, fill: "var(--kml-ink)", "text-anchor": "end" }, `${name} ${number(first[mark])}`)));
  }

  boost(at, layer, inside) {
    const top = Math.max(0, ...inside.map((i) => this.run.rows[i][BOOST]));
    if (!top) return;
    const i = inside.find((each) => this.run.rows[each][BOOST] === top);
    const words = `boost ${number(top)}`;
    const x = Math.min(at.x(this.xs[i]) + 4, at.right - words.length * 7);
    layer.append(shape("text", { class: "boost", x, y: at.y(this.run.rows[i][HIGH]) - 6, "font-size": 11, fill: "var(--kml-ink2)", ...halo }, words));
  }

  ring(at, layer) {
    const { ring } = this.run;
    if (!ring || this.xs[ring.at] < at.lo || this.xs[ring.at] > at.hi) return;
    let [x, y] = [at.x(this.xs[ring.at]), at.y(ring.free)];
    layer.append(shape("circle", { class: "ring", cx: x, cy: y, r: 6, fill: "none", stroke: "var(--kml-bad)", "stroke-width": 2.5 }));
    const more = 16 * (ring.words.length - 1);
    const left = x > (at.left + at.right) / 2;
    if (left) [x, y] = [x - 12, Math.min(y + 6, at.bottom - 6 - more)];
    else [x, y] = [x - 6, y + 40 + more < at.bottom ? y + 21 : y - 14 - more];
    ring.words.forEach((words, i) =>
      layer.append(shape("text", { class: "null", x, y: y + 16 * i, "font-size": 12, "font-weight": 600, fill: "var(--kml-bad)", "text-anchor": left ? "end" : "start", ...halo }, words)));
  }

  // --- what is said ------------------------------------------------------------------------------------

  words() {
    const row = this.run.rows[this.at];
    const boost = row[BOOST] ? ` (boost ${number(row[BOOST])} in each)` : "";
    const kills = row[OOM] ? `, ${plural(row[OOM], "OOM kill")}` : "";
    const time = this.panel.x === MS ? ` at ${number(row[MS])} ms` : "";
    const under = row[FREE] > row[HIGH] ? "above high" : row[FREE] > row[LOW] ? "above low" : row[FREE] > row[MIN] ? "above min" : "not above min";
    const nulls = row[ASKED] - row[GOT] ? `, ${number(row[ASKED] - row[GOT])} NULL` : "";
    return `after ${plural(row[ASKED], "request")}${nulls}${time}: ${number(row[FREE])} free, ${under}; min ${number(row[MIN])}, low ${number(row[LOW])}, high ${number(row[HIGH])}${boost}; kswapd ran ${plural(row[KSWAPD], "time")}, direct reclaim ${plural(row[DIRECT], "time")}${kills}`;
  }

  point(width, layer) {
    const at = this.place(width);
    const [x, y] = [at.x(this.xs[this.at]), at.y(this.run.rows[this.at][FREE])];
    layer.cursor.style.display = x < at.left - 1 || x > at.right + 1 ? "none" : "";
    layer.cursor.firstChild.setAttribute("x1", x);
    layer.cursor.firstChild.setAttribute("x2", x);
    layer.cursor.lastChild.setAttribute("cx", x);
    layer.cursor.lastChild.setAttribute("cy", y);
  }

  say() {
    this.said.textContent = this.words();
    this.said.setAttribute("aria-valuenow", this.at);
    this.said.setAttribute("aria-valuetext", this.said.textContent);
    this.whole.disabled = this.wider.disabled = !this.span;
  }

  go(index) {
    const [low, high] = this.bounds();
    this.at = Math.max(low, Math.min(high, index));
    this.panel.point(this);
  }

  // First and last sample of the part that is seen.
  bounds() {
    if (!this.span) return [0, this.xs.length - 1];
    const first = this.xs.findIndex((x) => x >= this.span[0]);
    const last = this.xs.findLastIndex((x) => x <= this.span[1]);
    return first < 0 || last < first ? [this.at, this.at] : [first, last];
  }

  see(span) {
    this.span = span;
    const [low, high] = this.bounds();
    this.at = Math.max(low, Math.min(high, this.at));
    this.panel.redraw(this);
  }

  zoom(factor) {
    const [from, to] = [this.xs[0], this.xs.at(-1)];
    const [lo, hi] = this.span ?? [from, to];
    const half = ((hi - lo) * factor) / 2;
    if (half < 2) return;
    const middle = this.xs[this.at];
    const span = [Math.max(from, middle - half), Math.min(to, middle + half)];
    this.see(span[0] <= from && span[1] >= to ? null : span);
  }
}

const halo = { "paint-order": "stroke", stroke: "var(--kml-paper)", "stroke-width": 3, "stroke-linejoin": "round" };

class Marks {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    root.classList.add("kml-watermarks");
    this.head = el("p", "head");
    this.sub = el("p", "sub");
    this.pictures = { 868: el("div", "wide"), 358: el("div", "narrow") };
    this.hands = el("div", "hands");
    this.floors = el("fieldset");
    this.hidden = new Set();
    this.curves = [];
    this.twin = el("div", "quiet");
    this.live = el("div", "quiet");
    this.live.setAttribute("aria-live", "polite");
    root.append(this.head, this.sub, this.pictures[868], this.pictures[358], this.hands, this.floors, this.twin, this.live);
    for (const [width, picture] of Object.entries(this.pictures)) {
      picture.addEventListener("pointermove", (event) => this.hover(event, width));
      picture.addEventListener("pointerdown", (event) => this.brush(event, width));
      picture.addEventListener("dblclick", (event) => this.found(event, width)?.curve.see(null));
    }
  }

  update() {
    this.data = JSON.parse(this.model.get("view_data"));
    const failed = this.data.error !== undefined;
    this.root.classList.toggle("failed", failed);
    for (const part of [this.hands, this.floors, ...Object.values(this.pictures)]) part.hidden = failed;
    if (failed) {
      const [first, ...rest] = this.data.error.split("\n");
      this.head.textContent = first;
      this.sub.textContent = rest.join("\n");
      return;
    }
    this.x = this.data.by === "ms" ? MS : ASKED;
    this.sub.textContent = this.data.sub;
    this.twin.textContent = this.data.twin;
    while (this.curves.length < this.data.runs.length) {
      this.curves.push(new Curve(this, this.curves.length));
      this.hands.append(this.curves.at(-1).hand);
    }
    this.curves.forEach((curve, i) => curve.update(this.data.runs[i]));
    for (const [width, picture] of Object.entries(this.pictures)) {
      picture.innerHTML = this.data.base[width]; // our own drawing, escaped in Python
      const svg = picture.firstElementChild;
      svg.setAttribute("aria-hidden", "true"); // the words below say the same
      svg.removeAttribute("role");
      svg.removeAttribute("aria-label");
      svg.layers = this.curves.map(() => svg.appendChild(shape("g", { class: "curve" })));
    }
    this.tick();
    this.curves.forEach((curve) => this.redraw(curve));
    this.head.textContent = this.data.head;
    this.root.dataset.drawn = String(1 + Number(this.root.dataset.drawn ?? 0));
  }

  redraw(curve) {
    for (const [width, picture] of Object.entries(this.pictures)) {
      const layer = picture.firstElementChild.layers[curve.index];
      layer.replaceChildren();
      curve.draw(width, layer);
    }
    curve.say();
  }

  // The cursor of one curve moved.
  point(curve) {
    for (const [width, picture] of Object.entries(this.pictures)) curve.point(width, picture.firstElementChild.layers[curve.index]);
    curve.say();
    clearTimeout(this.saying);
    if (document.activeElement !== curve.said) this.saying = setTimeout(() => (this.live.textContent = curve.words()), 300);
  }

  // Boxes stay the same nodes while the masks are the same, so the focus stays where it is.
  tick() {
    const names = JSON.stringify(this.data.floors);
    if (names !== this.named) {
      this.named = names;
      this.floors.replaceChildren(
        el("legend", "", "floors of"),
        ...this.data.floors.map(([name], i) => {
          const label = el("label");
          const box = Object.assign(el("input"), { type: "checkbox", checked: !this.hidden.has(name) });
          box.dataset.floor = i;
          box.addEventListener("change", () => {
            if (box.checked) this.hidden.delete(name);
            else this.hidden.add(name);
            this.conceal();
          });
          label.append(box, name);
          return label;
        }),
      );
    }
    this.floors.hidden = !this.data.floors.length;
    this.conceal();
  }

  conceal() {
    for (const group of this.root.querySelectorAll(".floor"))
      group.style.display = this.hidden.has(this.data.floors[group.dataset.floor][0]) ? "none" : "";
  }

  // The curve under the pointer, and where on it: {curve, value}, or nothing.
  found(event, width, only) {
    if (this.data.error !== undefined) return undefined;
    const box = this.pictures[width].firstElementChild.getBoundingClientRect();
    const scale = Number(width) / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    for (const curve of only ? [only] : this.curves) {
      const at = curve.place(width);
      if (!only && (x < at.left - 6 || x > at.right + 6 || y < at.top - 10 || y > at.ticks)) continue;
      const px = Math.max(at.left, Math.min(at.right, x));
      return { curve, px, value: at.lo + ((px - at.left) / (at.right - at.left)) * (at.hi - at.lo) };
    }
    return undefined;
  }

  hover(event, width) {
    const hit = this.brushing ? undefined : this.found(event, width);
    if (hit) hit.curve.go(hit.curve.nearest(hit.value));
  }

  brush(event, width) {
    const from = event.button ? undefined : this.found(event, width);
    if (!from) return;
    const { curve } = from;
    const { brush } = this.pictures[width].firstElementChild.layers[curve.index];
    let to = from;
    this.brushing = true;
    const follow = (moved) => {
      to = this.found(moved, width, curve);
      brush.setAttribute("x", Math.min(from.px, to.px));
      brush.setAttribute("width", Math.abs(from.px - to.px));
    };
    // A touch that becomes a scroll ends with pointercancel, and no pointerup comes.
    const ends = ["pointerup", "pointercancel"];
    const end = (last) => {
      window.removeEventListener("pointermove", follow);
      for (const name of ends) window.removeEventListener(name, end);
      this.brushing = false;
      brush.setAttribute("width", 0);
      const span = [from.value, to.value].sort((a, b) => a - b);
      if (last.type === "pointerup" && Math.abs(from.px - to.px) > 4 && span[1] - span[0] >= 2) curve.see(span);
    };
    window.addEventListener("pointermove", follow);
    for (const name of ends) window.addEventListener(name, end);
  }

  key(event) {
    const curve = this.curves.find((each) => each.said === event.target);
    if (!curve) return false;
    const step = event.shiftKey ? 10 : 1;
    const [low, high] = curve.bounds();
    const to = {
      ArrowLeft: curve.at - step, ArrowDown: curve.at - step, ArrowRight: curve.at + step, ArrowUp: curve.at + step,
      PageUp: curve.at + 50, PageDown: curve.at - 50, Home: low, End: high,
    }[event.key];
    if (to !== undefined) curve.go(to);
    else if (event.key === "+") curve.zoom(0.5);
    else if (event.key === "-") curve.zoom(2);
    else if (event.key === "0") curve.see(null);
    else return false;
    return true;
  }

  end() {
    clearTimeout(this.saying);
  }
}

const render = ({ model, el: root }) => mount(new Marks(model, root), model, root);

export default { render };
