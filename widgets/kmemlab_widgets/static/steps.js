// MempoolGauge and TaskTimeline in the browser: Python draws the columns that are seen; which of them is chosen, and
// what it means, is answered here. A column outside the picture is asked for.

const SVG = "http://www.w3.org/2000/svg";

class Columns {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    root.classList.add("kml-steps");
    this.head = el("div", "head");
    this.sub = el("div", "sub");
    this.pictures = { 868: el("div", "picture wide"), 358: el("div", "picture narrow") };
    this.hand = el("div", "hand");
    this.range = Object.assign(el("input"), { type: "range", min: 0, step: 1 });
    this.range.addEventListener("input", () => this.choose(Number(this.range.value)));
    this.said = el("div", "said");
    this.fails = Object.assign(el("input"), { type: "checkbox" });
    this.label = el("label", "fails");
    this.label.append(this.fails, "alloc_fn fails");
    this.fails.addEventListener("change", () => {
      model.set("alloc_fn_fails", this.fails.checked);
      model.save_changes();
    });
    this.hand.append(this.range, this.label);
    this.twin = el("div", "quiet");
    this.live = el("div", "quiet");
    this.live.setAttribute("aria-live", "polite");
    root.append(this.head, this.sub, ...Object.values(this.pictures), this.said, this.hand, this.twin, this.live);
    for (const [width, picture] of Object.entries(this.pictures)) {
      picture.addEventListener("pointermove", (event) => this.tell(this.hit(event, width) ?? this.at));
      picture.addEventListener("pointerleave", () => this.tell(this.at));
      picture.addEventListener("click", (event) => this.choose(this.hit(event, width) ?? this.at));
    }
  }

  update() {
    this.data = JSON.parse(this.model.get("view_data"));
    const failed = this.data.error !== undefined;
    this.root.classList.toggle("failed", failed);
    for (const part of [...Object.values(this.pictures), this.said, this.hand]) part.hidden = failed;
    if (failed) {
      const [head, ...rest] = this.data.error.split("\n");
      this.head.textContent = head;
      this.sub.textContent = rest.join("\n");
      return;
    }
    const { head, sub, badge, twin, count, svg, what } = this.data;
    this.head.replaceChildren(head, ...(badge ? [el("span", "badge", badge)] : []));
    this.sub.textContent = sub;
    this.twin.textContent = twin;
    for (const [width, picture] of Object.entries(this.pictures)) {
      picture.innerHTML = svg[width]; // our own drawing, escaped in Python
      const drawing = picture.firstElementChild;
      drawing.setAttribute("aria-label", head);
      const frame = document.createElementNS(SVG, "rect");
      for (const [name, value] of Object.entries({ class: "frame", fill: "none", stroke: "var(--kml-focus)", "stroke-width": 2 }))
        frame.setAttribute(name, value);
      drawing.append(frame);
    }
    this.range.max = count - 1;
    this.range.setAttribute("aria-label", what);
    this.range.disabled = count < 2;
    this.label.hidden = !this.model.get("breakable");
    this.ticked();
    this.at = this.data.at;
    this.place();
    this.speak(head);
    this.root.dataset.drawn = String(1 + Number(this.root.dataset.drawn ?? 0));
  }

  ticked() {
    this.fails.checked = Boolean(this.model.get("alloc_fn_fails"));
  }

  // The width whose picture is seen.
  get width() {
    return this.pictures[358].offsetParent ? 358 : 868;
  }

  inside(at, width) {
    const { first, across } = this.data.grid[width];
    return at >= first && at < first + across;
  }

  choose(at) {
    this.at = at;
    if (this.inside(at, this.width)) this.place();
    else this.model.send({ at });
  }

  // Frame, handle and sentence where the chosen column is.
  place() {
    for (const [width, picture] of Object.entries(this.pictures)) {
      const { x, step, top, bottom, first } = this.data.grid[width];
      const frame = picture.querySelector(".frame");
      frame.setAttribute("visibility", this.inside(this.at, width) ? "inherit" : "hidden");
      for (const [name, value] of Object.entries({ x: x + (this.at - first) * step, y: top, width: step, height: bottom - top }))
        frame.setAttribute(name, value);
    }
    this.range.value = this.at;
    this.range.setAttribute("aria-valuetext", this.data.says[this.at].join(": "));
    this.tell(this.at);
  }

  tell(at) {
    const [name, words] = this.data.says[at] ?? ["", ""];
    this.said.replaceChildren(el("b", "", name), ` ${words}`);
  }

  hit(event, width) {
    const box = this.pictures[width].firstElementChild.getBoundingClientRect();
    const { x, step, first, across } = this.data.grid[width];
    const column = Math.floor((((event.clientX - box.left) * Number(width)) / box.width - x) / step);
    return column >= 0 && column < across ? first + column : null;
  }

  speak(words) {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (this.live.textContent = words), 300);
  }

  end() {
    clearTimeout(this.saying);
  }
}

const render = ({ model, el: root }) => {
  const panel = new Columns(model, root);
  return mount(panel, model, root, { "alloc_fn_fails": () => panel.ticked() });
};

export default { render };
