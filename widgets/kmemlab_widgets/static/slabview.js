// SlabView in the browser: it knows where each slab stands, so hover, arrows and clicks find the object here.

const SVG = "http://www.w3.org/2000/svg";

class Slabs {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.at = null; // [box, index] under the keys
    root.classList.add("kml-slabview");
    this.error = el("div", "failed");
    this.pictures = { 868: el("div", "picture wide"), 358: el("div", "picture narrow") };
    this.tip = el("p", "tip");
    this.hands = el("div", "hands");
    this.freeIt = this.button("Free it", () => this.act("free"));
    this.look = this.button("Its bytes", () => this.act("look"));
    this.alloc = this.button("Allocate one (N)", () => this.model.send({ alloc: true }));
    this.said = el("span", "said");
    this.said.setAttribute("role", "status");
    this.hands.append(this.said);
    this.bytes = el("div", "bytes");
    this.bytes.tabIndex = 0;
    this.bytes.setAttribute("role", "region");
    this.bytes.setAttribute("aria-label", "bytes of the object");
    this.live = el("div", "quiet");
    this.live.setAttribute("aria-live", "polite");
    root.append(this.error, this.pictures[868], this.pictures[358], this.tip, this.hands, this.bytes, this.live);
    for (const [width, picture] of Object.entries(this.pictures)) {
      picture.tabIndex = 0;
      picture.setAttribute("role", "application");
      picture.addEventListener("pointermove", (event) => this.hover(this.hit(event, width)));
      picture.addEventListener("pointerleave", () => this.hover(this.at));
      picture.addEventListener("click", (event) => this.clicked(this.hit(event, width), width));
    }
  }

  button(words, does) {
    const button = Object.assign(el("button", "", words), { type: "button" });
    button.addEventListener("click", does);
    this.hands.append(button);
    return button;
  }

  update() {
    this.data = JSON.parse(this.model.get("view_data"));
    const failed = this.data.error !== undefined;
    this.error.hidden = !failed;
    for (const part of [...Object.values(this.pictures), this.tip, this.hands, this.bytes]) part.hidden = failed;
    if (failed) {
      this.error.textContent = this.data.error;
      return;
    }
    for (const [width, picture] of Object.entries(this.pictures)) {
      picture.innerHTML = this.data.svg[width]; // our own drawing, escaped in Python
      const svg = picture.firstElementChild;
      svg.setAttribute("aria-hidden", "true");
      svg.removeAttribute("role");
      svg.removeAttribute("aria-label");
      picture.setAttribute("aria-label", `${this.data.head}. Arrows walk over the objects, Enter frees one, N allocates.`);
      const frame = document.createElementNS(SVG, "rect");
      for (const [name, value] of Object.entries({ fill: "none", stroke: "var(--kml-focus)", "stroke-width": 3, visibility: "hidden", class: "frame" }))
        frame.setAttribute(name, value);
      svg.append(frame);
    }
    this.said.textContent = this.data.said;
    this.keep();
    this.drawBytes();
    this.hover(this.at);
    this.speak(this.data.said || this.data.head);
    this.root.dataset.drawn = String(1 + Number(this.root.dataset.drawn ?? 0));
  }

  // The same object after a redraw, if its slab is still there.
  keep() {
    if (!this.at) return;
    const [old, index, width] = this.at;
    const box = this.data.boxes[width].find((each) => each.pfn === old.pfn);
    this.at = box ? [box, index, width] : null;
  }

  words(at) {
    if (!at) return "hover or walk with the arrows: which object, in use or free";
    const [box, index] = at;
    const place = box.free.indexOf(index);
    const address = (BigInt(this.data.base) + BigInt(box.pfn * 4096 + this.data.pad + index * this.data.size)).toString(16);
    const state = place < 0 ? "in use, click frees it" : place === 0 ? "free, first on its list" : `free, number ${place + 1} on its list`;
    return `object ${index} of slab ${box.pfn} (${box.where}) at ${address}: ${state}`;
  }

  hover(at) {
    this.tip.textContent = this.words(at);
    for (const [width, picture] of Object.entries(this.pictures)) {
      const frame = picture.querySelector(".frame");
      if (!frame) continue;
      const shown = at && at[2] === width;
      frame.setAttribute("visibility", shown ? "visible" : "hidden");
      if (!shown) continue;
      const [box, index] = at;
      for (const [name, value] of Object.entries({
        x: box.x + (index % box.cols) * box.cell, y: box.y + Math.floor(index / box.cols) * box.cell,
        width: box.cell, height: box.cell,
      })) frame.setAttribute(name, value);
    }
    const chosen = at ?? this.at;
    this.freeIt.disabled = !chosen || chosen[0].free.includes(chosen[1]);
    this.look.disabled = !chosen;
  }

  hit(event, width) {
    const box = this.pictures[width].firstElementChild.getBoundingClientRect();
    const scale = Number(width) / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    for (const each of this.data.boxes[width]) {
      const [col, row] = [Math.floor((x - each.x) / each.cell), Math.floor((y - each.y) / each.cell)];
      const index = row * each.cols + col;
      if (col >= 0 && col < each.cols && row >= 0 && index >= 0 && index < each.objects) return [each, index, width];
    }
    return null;
  }

  clicked(at) {
    if (!at) return;
    this.at = at;
    if (at[0].free.includes(at[1])) this.hover(at);
    else this.act("free");
  }

  act(what) {
    if (this.at) this.model.send({ [what]: [this.at[0].pfn, this.at[1]] });
  }

  walk(key, width) {
    const boxes = this.data.boxes[width];
    if (!boxes.length) return;
    if (!this.at || this.at[2] !== width) this.at = [boxes[0], 0, width];
    else {
      const [box, index] = this.at;
      const number = boxes.indexOf(box);
      if (key === "ArrowLeft" || key === "ArrowRight") {
        const to = index + (key === "ArrowRight" ? 1 : -1);
        if (to >= 0 && to < box.objects) this.at = [box, to, width];
      } else {
        const next = boxes[number + (key === "ArrowDown" ? 1 : -1)];
        if (next) this.at = [next, Math.min(index, next.objects - 1), width];
      }
    }
    this.hover(this.at);
    this.speak(this.words(this.at));
  }

  speak(words) {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (this.live.textContent = words), 300);
  }

  drawBytes() {
    const { bytes } = this.data;
    this.bytes.hidden = !bytes;
    if (!bytes) return;
    const lines = bytes.rows.map(({ addr, cells, text }) => {
      const line = el("div", "line", `${addr}  `);
      for (const [value, field, wrong] of cells) {
        const cell = el("span", `b f${field}${wrong ? " wrong" : ""}`, value);
        cell.title = bytes.fields[field] ?? "";
        line.append(cell);
      }
      line.append(`  ${text}`);
      return line;
    });
    const key = el("div", "key");
    bytes.fields.forEach((words, i) => key.append(el("span", `f${i}`, words)));
    this.bytes.replaceChildren(el("b", "", bytes.head), ...lines, key);
  }

  key(event) {
    const width = Object.keys(this.pictures).find((each) => this.pictures[each] === event.target);
    if (event.key === "n" || event.key === "N") this.model.send({ alloc: true });
    else if (width && event.key.startsWith("Arrow")) this.walk(event.key, width);
    else if (width && event.key === "Enter" && this.at) this.clicked(this.at);
    else return false;
    return true;
  }

  end() {
    clearTimeout(this.saying);
  }
}

const render = ({ model, el: root }) => mount(new Slabs(model, root), model, root);

export default { render };
