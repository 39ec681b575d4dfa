// FreeLists in the browser: shows Python's drawings; bars can be pointed at and walked over with the arrows.

class Lists {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    root.classList.add("kml-freelists");
    this.stage = el("div", "stage");
    this.stage.tabIndex = 0;
    this.stage.setAttribute("role", "application");
    this.pictures = { wide: el("div", "wide"), narrow: el("div", "narrow") };
    this.mark = el("div", "here");
    this.tip = el("div", "tip");
    this.mark.hidden = this.tip.hidden = true;
    this.stage.append(this.pictures.wide, this.pictures.narrow, this.mark, this.tip);
    this.label = el("label", "flag", "would it work now, for ");
    this.select = el("select");
    this.label.append(this.select);
    this.twin = el("div", "quiet");
    this.twin.id = `kml-lists-${Math.random().toString(36).slice(2)}`;
    this.live = el("div", "quiet");
    this.live.setAttribute("aria-live", "polite");
    root.append(this.stage, this.label, this.twin, this.live);
    this.order = -1;
    this.listen();
  }

  update() {
    const data = (this.data = JSON.parse(this.model.get("data")));
    for (const [name, picture] of Object.entries(this.pictures)) {
      picture.innerHTML = data[name]; // our own drawing, escaped in Python
      picture.querySelector("svg")?.setAttribute("aria-describedby", this.twin.id);
    }
    this.twin.textContent = data.twin;
    this.stage.setAttribute("aria-label", `${data.headline} Arrows walk over the orders, P pins the moment before.`);
    this.label.hidden = !data.masks?.length;
    this.select.replaceChildren(...(data.masks ?? []).map((name) => new Option(name, name)));
    this.select.value = this.model.get("mask");
    if (this.order >= 0) this.point(this.order);
  }

  listen() {
    this.select.addEventListener("change", () => {
      this.model.set("mask", this.select.value);
      this.model.save_changes();
    });
    this.stage.addEventListener("mousemove", (event) => {
      const svg = this.pictures.wide.querySelector("svg");
      if (!this.data.bars || !svg?.getClientRects().length) return;
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) * 868) / box.width;
      const order = Math.floor((x - this.data.at.left) / this.data.at.step);
      if (order !== this.order) this.point(order >= 0 && order < 11 ? order : -1);
    });
    this.stage.addEventListener("mouseleave", () => this.point(-1));
    this.stage.addEventListener("blur", () => this.point(-1));
    this.root.addEventListener("keydown", (event) => {
      if (theirs(event) || event.key === "Tab") return;
      event.stopPropagation();
      if (event.key === "Escape") this.leave();
      if (event.target !== this.stage || !this.data.bars) return;
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step) this.point(this.order < 0 ? (step > 0 ? 0 : 10) : Math.max(0, Math.min(10, this.order + step)));
      else if (event.key === "Home" || event.key === "End") this.point(event.key === "Home" ? 0 : 10);
      else if (event.key === "p" || event.key === "P") this.model.send({ do: "mark" });
      else return;
      event.preventDefault();
    });
  }

  leave() {
    if (this.order >= 0) this.point(-1);
    else {
      document.activeElement?.blur();
      this.root.closest(".jp-Cell, .jp-Notebook")?.focus();
    }
  }

  point(order) {
    const moved = order !== this.order;
    this.order = order;
    this.mark.hidden = this.tip.hidden = order < 0;
    if (moved) this.model.send({ do: "point", order });
    if (order < 0) return;
    this.tip.textContent = this.data.bars[order];
    const svg = this.pictures.wide.querySelector("svg");
    const wide = svg?.getClientRects().length > 0;
    this.mark.hidden = !wide;
    if (wide) {
      const scale = svg.getBoundingClientRect().width / 868;
      const { left, step } = this.data.at;
      Object.assign(this.mark.style, {
        left: `${(left + order * step) * scale}px`,
        width: `${(step - 4) * scale}px`,
        height: `${svg.getBoundingClientRect().height - 50}px`,
      });
      const most = Math.max(0, this.stage.clientWidth - 348);
      this.tip.style.left = `${Math.min((left + order * step) * scale, most)}px`;
    } else this.tip.style.left = "8px";
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (this.live.textContent = this.data.bars[order]), 300);
  }
}

function render({ model, el: root }) {
  const lists = new Lists(model, root);
  const update = () => lists.update();
  update();
  model.on("change:data", update);
  model.on("change:mask", update);
  const release = keepKeys(root);
  return () => {
    model.off("change:data", update);
    model.off("change:mask", update);
    release();
    clearTimeout(lists.saying);
  };
}

export default { render };
