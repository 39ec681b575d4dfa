// OrderSlider in the browser: Python sends one table a state; sliding and choosing are answered here.

const SVG = "http://www.w3.org/2000/svg";
const shape = (tag, attributes) => {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

class Slider {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    root.classList.add("kml-orderslider");
    this.head = el("p", "head");
    this.sub = el("p", "sub");
    this.pictures = { 868: el("div", "wide"), 358: el("div", "narrow") };
    this.range = Object.assign(el("input", "range"), { type: "range", min: 0, max: 10, step: 1 });
    this.range.setAttribute("aria-label", "order of the request");
    this.choice = el("div", "choice");
    this.choice.setAttribute("role", "group");
    this.choice.setAttribute("aria-label", "explain the mask");
    this.why = el("div", "why");
    this.live = el("div", "quiet");
    this.live.setAttribute("aria-live", "polite");
    root.append(this.head, this.sub, this.pictures[868], this.pictures[358], this.range, this.choice, this.why, this.live);
    this.range.addEventListener("input", () => this.choose(Number(this.range.value), this.mask));
    for (const [width, picture] of Object.entries(this.pictures))
      picture.addEventListener("click", (event) => this.clicked(event, width));
  }

  update() {
    this.data = JSON.parse(this.model.get("view_data"));
    const failed = this.data.error !== undefined;
    this.root.classList.toggle("failed", failed);
    for (const part of [this.range, this.choice, this.why, ...Object.values(this.pictures)]) part.hidden = failed;
    if (failed) {
      const [first, ...rest] = this.data.error.split("\n");
      this.head.textContent = first;
      this.sub.textContent = rest.join("\n");
      return;
    }
    this.sub.textContent = this.data.sub;
    for (const [width, picture] of Object.entries(this.pictures)) {
      picture.innerHTML = this.data.base[width]; // our own drawing, escaped in Python
      const svg = picture.firstElementChild;
      svg.setAttribute("aria-hidden", "true"); // the slider and the words below say the same
      svg.removeAttribute("role");
      svg.removeAttribute("aria-label");
      this.pick(width, svg);
    }
    const focused = this.choice.contains(document.activeElement);
    this.choice.replaceChildren(
      ...this.data.masks.map((name, index) => {
        const button = Object.assign(el("button", "", name), { type: "button" });
        button.addEventListener("click", () => this.choose(this.order, index));
        return button;
      }),
    );
    this.order = this.model.get("order");
    this.mask = Math.max(0, this.data.masks.indexOf(this.model.get("mask")));
    this.draw();
    if (focused) this.choice.children[this.mask].focus();
  }

  // The parts that move: the block at hand, the stop, a frame over each band.
  pick(width, svg) {
    const { rows, tall, cell, rail } = this.data.geometry[width];
    const at = { y: 0, height: tall + 4, width: cell - 2, fill: "none", stroke: "var(--kml-focus)", "stroke-width": 2 };
    const group = shape("g", { class: "pick" });
    const block = shape("rect", { fill: "var(--kml-accent)", class: "block" });
    const stops = [
      [9, "focus"],
      [7, "paper"],
      [5, "accent"],
    ].map(([r, token]) => shape("circle", { r, cy: rail, fill: `var(--kml-${token})` }));
    const frames = rows.map((y) => shape("rect", { ...at, y: y - 2 }));
    group.append(block, ...stops, ...frames);
    svg.append(group);
    svg.picked = { block, stops, frames };
  }

  draw() {
    const { order, mask } = this;
    this.head.textContent = this.data.heads[order];
    this.range.value = order;
    this.range.setAttribute("aria-valuetext", this.data.sizes[order]);
    for (const [width, picture] of Object.entries(this.pictures)) {
      const { left, cell, unit, top } = this.data.geometry[width];
      const { block, stops, frames } = picture.firstElementChild.picked;
      const x = left + order * cell;
      const [w, h] = [2 ** Math.ceil(order / 2) * unit, 2 ** Math.floor(order / 2) * unit];
      for (const [name, value] of Object.entries({ x: x + cell / 2 - w / 2, y: top - h, width: w, height: h }))
        block.setAttribute(name, value);
      for (const stop of stops) stop.setAttribute("cx", x + cell / 2);
      for (const frame of frames) frame.setAttribute("x", x);
    }
    [...this.choice.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === mask)));
    this.explain(this.data.why[mask][order]);
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (this.live.textContent = this.data.twins[order]), 300);
    this.root.dataset.drawn = `${order}/${mask}`;
  }

  explain({ title, tests, kind }) {
    const rows = tests.map((test) => {
      const row = el("div", "test");
      const bar = el("div", "bar");
      bar.setAttribute("aria-hidden", "true");
      const [left, free, need] = test.bar.map((part) => `${(100 * part).toFixed(2)}%`);
      for (const [cls, style] of [
        ["left", { width: left }],
        ["gone", { left, width: `calc(${free} - ${left})` }],
        ["need", { left: need }],
      ])
        Object.assign(bar.appendChild(el("span", cls)).style, style);
      const words = el("div", "words");
      words.append(el("code", "", test.sum));
      for (const verdict of [test.amount, test.block])
        if (verdict) words.append(el("b", verdict[0] ? "ok" : "bad", `${verdict[0] ? "✓" : "✕"} ${verdict[1]}`));
      const scale = el("div", "scale");
      scale.append(bar, el("span", "mark", test.mark));
      row.append(el("b", "zone", test.zone), scale, words);
      return row;
    });
    this.why.className = `why ${kind}`;
    this.why.replaceChildren(el("p", "title", title), ...rows);
  }

  choose(order, mask) {
    this.order = order;
    this.mask = mask;
    this.draw();
    this.model.set("order", order);
    this.model.set("mask", this.data.masks[mask]);
    this.model.save_changes();
  }

  clicked(event, width) {
    const svg = this.pictures[width].firstElementChild;
    const box = svg.getBoundingClientRect();
    const scale = Number(width) / box.width;
    const { left, cell, rows, tall } = this.data.geometry[width];
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const order = Math.floor((x - left) / cell);
    if (order < 0 || order > 10) return;
    const row = rows.findIndex((top) => y >= top - 4 && y <= top + tall + 4);
    this.choose(order, row < 0 ? this.mask : row);
  }

  moved() {
    const [order, mask] = [this.model.get("order"), this.data.masks?.indexOf(this.model.get("mask"))];
    if (this.data.error !== undefined || (order === this.order && mask === this.mask)) return;
    this.order = order;
    this.mask = Math.max(0, mask);
    this.draw();
  }

  end() {
    clearTimeout(this.saying);
  }
}

const render = ({ model, el: root }) => {
  const slider = new Slider(model, root);
  const moved = () => slider.moved();
  return mount(slider, model, root, { order: moved, mask: moved });
};

export default { render };
