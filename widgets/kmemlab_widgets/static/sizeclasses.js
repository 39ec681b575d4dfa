// SizeClasses in the browser: the tables of both kernels are here, so nothing is asked of Python while sliding.

const SVG = "http://www.w3.org/2000/svg";
const shape = (tag, attributes) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};
const set = (node, values) => Object.entries(values).forEach(([name, value]) => node.setAttribute(name, value));
const number = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

// --- the words of sizeclasses.py ------------------------------------------------------------------------

const pageSizes = (ladder) => {
  const sizes = [];
  for (let size = ladder.classes.at(-1) * 2; size <= ladder.largest; size *= 2) sizes.push(size);
  return sizes;
};

const given = (ladder, size) => {
  if (size === 0) return ladder.zero;
  if (size > ladder.largest) return null;
  return ladder.classes.find((each) => each >= size) ?? pageSizes(ladder).find((each) => each >= size);
};

const sourceOf = (ladder, size, family) => {
  const bytes = given(ladder, size);
  if (bytes === null) return "NULL";
  if (bytes === 0) return "ZERO_SIZE_PTR";
  if (bytes > ladder.classes.at(-1)) return `pages of order ${Math.log2(bytes / 4096)}`;
  const front = ladder.prefixes[family] ?? ladder.prefixes.normal;
  if (ladder.old) return `size-${bytes}${front}`;
  return front + (bytes >= 1024 ? `${bytes / 1024}k` : bytes);
};

const headline = (ladder, size) => {
  const bytes = given(ladder, size);
  if (bytes === null) return `kmalloc(${number(size)}) gets NULL: ${number(ladder.largest)} bytes are the most`;
  if (bytes === 0) return "kmalloc(0) gets ZERO_SIZE_PTR (0x10): not NULL, and not to be touched";
  const unused = bytes - size;
  if (!unused) return `kmalloc(${number(size)}) gets ${number(bytes)} bytes: it fits exactly`;
  const share = `${Math.floor((100 * unused) / bytes + 0.5)} %`;
  return `kmalloc(${number(size)}) gets ${number(bytes)} bytes: ${number(unused)} of them, ${share}, stay unused`;
};

const subline = (ladder, kernel, size, family) =>
  `${sourceOf(ladder, size, family)} of Linux ${kernel.replace("linux-", "")} · ` +
  `gives ${ladder.classes[0]} bytes at least, ${number(ladder.largest)} at most`;

const twin = (ladder, kernel, size, family) => {
  const below = [...ladder.classes, ...pageSizes(ladder)].findLast((edge) => edge < size);
  const edge = below ? ` Next class edge below: ${number(below)}.` : "";
  return `${headline(ladder, size)}\n${sourceOf(ladder, size, family)}, ${kernel}.${edge}`;
};

const HINT = "drag, type, or ← → one byte, with Shift 16, PgUp PgDn next class";

class Sizes {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    root.classList.add("kml-sizeclasses");
    this.head = el("p", "head");
    this.sub = el("p", "sub");
    this.pictures = { 868: el("div", "wide"), 358: el("div", "narrow") };
    this.range = Object.assign(el("input", "range"), { type: "range", min: 0, max: 2300, step: 1 });
    this.range.setAttribute("aria-label", "bytes asked");
    this.bytes = Object.assign(el("input", "bytes"), { type: "number", min: 0, max: 8388608 });
    const label = el("label", "", "bytes");
    label.append(this.bytes);
    this.choice = el("div", "choice");
    this.choice.setAttribute("role", "group");
    this.choice.setAttribute("aria-label", "size, kernel and family");
    this.kernels = {};
    this.families = {};
    this.choice.append(label, el("span", "gap"));
    for (const kernel of ["linux-6.1", "linux-2.6.11"]) this.kernels[kernel] = this.button(kernel, "kernel", kernel);
    this.choice.append(el("span", "gap"));
    for (const family of ["normal", "cg", "rcl", "dma"]) this.families[family] = this.button(family, "family", family);
    this.keeper = Object.assign(el("button", "keep", "keep to compare (C)"), { type: "button" });
    this.keeper.addEventListener("click", () => this.keep());
    this.choice.append(el("span", "gap"), this.keeper);
    this.compare = el("p", "compare", HINT);
    this.live = el("div", "quiet");
    this.live.setAttribute("aria-live", "polite");
    root.append(this.head, this.sub, this.pictures[868], this.pictures[358], this.range, this.choice, this.compare, this.live);
    this.range.addEventListener("input", () => this.choose(Math.round(2 ** (Number(this.range.value) / 100))));
    this.bytes.addEventListener("change", () => this.choose(Math.max(0, Math.min(8388608, Number(this.bytes.value) || 0))));
    for (const [width, picture] of Object.entries(this.pictures))
      picture.addEventListener("pointerdown", (event) => this.pointed(event, width));
  }

  button(words, name, value) {
    const button = Object.assign(el("button", "", words), { type: "button" });
    button.addEventListener("click", () => {
      this.model.set(name, value);
      this.model.save_changes();
      this.switched();
    });
    this.choice.append(button);
    return button;
  }

  get ladder() {
    return this.data.ladders[this.model.get("kernel")];
  }

  update() {
    this.data = JSON.parse(this.model.get("view_data"));
    const failed = this.data.error !== undefined;
    this.root.classList.toggle("failed", failed);
    for (const part of [this.range, this.choice, this.compare, ...Object.values(this.pictures)]) part.hidden = failed;
    if (failed) {
      const [first, ...rest] = this.data.error.split("\n");
      this.head.textContent = first;
      this.sub.textContent = rest.join("\n");
      return;
    }
    this.switched();
  }

  // Another kernel or family: other teeth, the same handle.
  switched() {
    const [kernel, family] = [this.model.get("kernel"), this.model.get("family")];
    for (const [name, button] of Object.entries(this.kernels)) button.setAttribute("aria-pressed", String(name === kernel));
    const real = family in this.ladder.prefixes ? family : "normal"; // what the words name where the family is unknown
    for (const [name, button] of Object.entries(this.families)) {
      button.setAttribute("aria-pressed", String(name === real));
      button.disabled = !(name in this.ladder.prefixes);
    }
    for (const [width, picture] of Object.entries(this.pictures)) {
      picture.innerHTML = this.data.base[kernel][width]; // our own drawing
      const svg = picture.firstElementChild;
      svg.setAttribute("aria-hidden", "true"); // the slider and the words say the same
      svg.removeAttribute("role");
      svg.removeAttribute("aria-label");
      svg.hatch = `kml-hatch-${width}`;
      svg.insertAdjacentHTML("afterbegin",
        `<defs><pattern id="${svg.hatch}" width="6" height="6" patternUnits="userSpaceOnUse" stroke="var(--kml-bad)"><path d="M-1 1L1 -1M0 6L6 0M5 7L7 5"/></pattern></defs>`);
      const group = shape("g", {});
      svg.parts = {
        tooth: shape("path", { fill: `url(#${svg.hatch})`, stroke: "var(--kml-bad)", "stroke-width": 1.5 }),
        asked: shape("rect", { fill: "var(--kml-slab)" }),
        paper: shape("rect", { fill: "var(--kml-badbg)", stroke: "var(--kml-bad)" }),
        unused: shape("rect", { fill: `url(#${svg.hatch})` }),
        words: shape("text", { "font-size": 11, fill: "var(--kml-ink)" }),
        rung: shape("rect", { fill: "none", stroke: "var(--kml-accent)", "stroke-width": 2.5, height: 22 }),
        kept: shape("line", { stroke: "var(--kml-ink)", "stroke-width": 1.5, "stroke-dasharray": "4 3" }),
        knob: shape("circle", { r: 5, fill: "var(--kml-paper)", stroke: "var(--kml-ink)", "stroke-width": 2 }),
        line: shape("line", { stroke: "var(--kml-accent)", "stroke-width": 2 }),
        rings: [[8, "focus"], [6, "paper"], [4, "accent"]].map(([r, token]) => shape("circle", { r, fill: `var(--kml-${token})` })),
      };
      const { rings, ...rest } = svg.parts;
      group.append(...Object.values(rest), ...rings);
      svg.append(group);
    }
    this.draw();
  }

  place(width) {
    const at = this.data.places[width];
    return {
      ...at,
      x: (size) => at.left + ((at.right - at.left) * Math.log2(Math.max(1, size))) / this.data.most,
      y: (share) => at.floor - (at.floor - at.top) * share,
    };
  }

  tooth(at, low, high) {
    const points = Array.from({ length: 25 }, (_, i) => low + 1 + ((high - low - 1) * i) / 24).map(
      (n) => `${at.x(n).toFixed(1)} ${at.y((high - n) / high).toFixed(1)}`,
    );
    return `M${at.x(low + 1).toFixed(1)} ${at.floor}L${points.join("L")}Z`;
  }

  draw() {
    const [size, kernel, family] = [this.model.get("size"), this.model.get("kernel"), this.model.get("family")];
    const ladder = this.ladder;
    const bytes = given(ladder, size);
    this.head.textContent = headline(ladder, size);
    this.sub.textContent = subline(ladder, kernel, size, family);
    this.range.value = Math.round(100 * Math.log2(Math.max(1, size)));
    this.range.setAttribute("aria-valuetext", `${size} bytes: ${bytes === null ? "NULL" : `${bytes} given`}`);
    if (document.activeElement !== this.bytes) this.bytes.value = size;
    const edges = [0, ...ladder.classes, ...pageSizes(ladder)];
    for (const [width, picture] of Object.entries(this.pictures)) {
      this.move(this.place(width), picture.firstElementChild, size, bytes, edges);
      this.moveKept(this.place(width), picture.firstElementChild);
    }
    this.compare.textContent = this.kept === undefined ? HINT : `kept: ${headline(ladder, this.kept)}`;
    clearTimeout(this.saying);
    const said = twin(ladder, kernel, size, family) + (this.kept === undefined ? "" : `\n${this.compare.textContent}`);
    this.saying = setTimeout(() => (this.live.textContent = said), 300);
    this.root.dataset.drawn = `${kernel}/${family}/${size}`;
  }

  move(at, svg, size, bytes, edges) {
    const { tooth, asked, paper, unused, words, rung, line, rings } = svg.parts;
    const real = bytes > 0;
    for (const node of [asked, paper, unused, words]) node.style.display = real ? "" : "none";
    for (const node of [tooth, rung]) node.style.display = bytes > 1 ? "" : "none";
    if (real) {
      const part = ((at.right - at.left) * size) / bytes;
      const rest = { x: at.left + part, y: at.bar, width: Math.max(0, at.right - at.left - part), height: at.tall };
      set(asked, { x: at.left, y: at.bar, width: part, height: at.tall });
      set(paper, rest);
      set(unused, rest);
      set(words, { x: at.left, y: at.bar + at.tall + 15 });
      words.textContent = `asked ${number(size)}, unused ${number(bytes - size)}`;
    }
    if (bytes > 1) {
      const low = Math.max(...edges.filter((edge) => edge < Math.max(1, size)));
      set(tooth, { d: this.tooth(at, low, bytes) });
      set(rung, { x: at.x(low + 1) + 1, y: at.floor + 12, width: Math.max(0, at.x(bytes) - at.x(low + 1) - 1) });
    }
    const x = at.x(size);
    set(line, { x1: x, x2: x, y1: at.top - 8, y2: at.floor + 34 });
    for (const ring of rings) set(ring, { cx: x, cy: at.y(real ? (bytes - size) / bytes : 0) });
  }

  // The second handle: where the size kept with C stands on this kernel.
  moveKept(at, svg) {
    const { kept, knob } = svg.parts;
    for (const node of [kept, knob]) node.style.display = this.kept === undefined ? "none" : "";
    if (this.kept === undefined) return;
    const bytes = given(this.ladder, this.kept);
    const x = at.x(this.kept);
    set(kept, { x1: x, x2: x, y1: at.top - 8, y2: at.floor + 34 });
    set(knob, { cx: x, cy: at.y(bytes ? (bytes - this.kept) / bytes : 0) });
  }

  keep() {
    this.kept = this.model.get("size");
    this.draw();
  }

  // Whole bytes: half a byte can be typed, not asked for.
  choose(size) {
    this.model.set("size", Math.max(0, Math.min(8388608, Math.round(size))));
    this.model.save_changes();
    this.draw();
  }

  pointed(event, width) {
    const svg = this.pictures[width].firstElementChild;
    const at = this.place(width);
    const follow = ({ clientX }) => {
      const box = svg.getBoundingClientRect();
      const x = ((clientX - box.left) * Number(width)) / box.width;
      const power = ((x - at.left) / (at.right - at.left)) * this.data.most;
      this.choose(Math.round(2 ** Math.max(0, Math.min(this.data.most, power))));
    };
    follow(event);
    // A touch that becomes a scroll ends with pointercancel, and no pointerup comes.
    const ends = ["pointerup", "pointercancel"];
    const end = () => {
      window.removeEventListener("pointermove", follow);
      for (const name of ends) window.removeEventListener(name, end);
    };
    window.addEventListener("pointermove", follow);
    for (const name of ends) window.addEventListener(name, end);
  }

  key(event) {
    const size = this.model.get("size");
    if (event.target === this.bytes) return false;
    if (event.key === "c" || event.key === "C") {
      this.keep();
      return true;
    }
    if (event.target !== this.range) return false;
    const step = event.shiftKey ? 16 : 1;
    const edges = [0, ...this.ladder.classes, ...pageSizes(this.ladder), this.ladder.largest + 1];
    const to = {
      ArrowLeft: size - step, ArrowDown: size - step, ArrowRight: size + step, ArrowUp: size + step,
      PageUp: edges.find((edge) => edge > size) ?? size, PageDown: edges.findLast((edge) => edge < size) ?? size,
      Home: 1, End: 8388608,
    }[event.key];
    if (to === undefined) return false;
    this.choose(to);
    return true;
  }

  end() {
    clearTimeout(this.saying);
  }
}

const render = ({ model, el: root }) => {
  const sizes = new Sizes(model, root);
  const switched = () => sizes.data.error === undefined && sizes.switched();
  const moved = () => sizes.data.error === undefined && sizes.draw();
  return mount(sizes, model, root, { size: moved, kernel: switched, family: switched });
};

export default { render };
