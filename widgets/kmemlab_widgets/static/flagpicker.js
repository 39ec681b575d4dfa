// FlagPicker in the browser: native boxes and buttons; Python says what the mask means.

class Picker {
  constructor(model, root) {
    this.model = model;
    root.classList.add("kml-flagpicker");
    this.root = root;
    this.error = el("div", "failed");
    this.head = el("p", "head");
    this.head.setAttribute("role", "status");
    this.bar = el("div", "bar");
    this.bits = el("div", "bits");
    this.text = el("p", "mode");
    this.answers = el("div", "answers");
    this.notes = el("ul", "notes");
    this.hands = el("div", "hands");
    this.paste = Object.assign(el("input"), { type: "text", placeholder: "mode:0x..." });
    this.paste.setAttribute("aria-label", "paste a mask: mode:0x...");
    this.paste.addEventListener("change", () => this.paste.value.trim() && this.model.send({ paste: this.paste.value }));
    this.ask = Object.assign(el("button", "", "Try it: one page with this mask"), { type: "button" });
    this.ask.addEventListener("click", () => this.model.send({ try: true }));
    this.said = el("span", "said");
    this.said.setAttribute("role", "status");
    this.hands.append(this.paste, this.ask, this.said);
    root.append(this.error, this.head, this.bar, this.bits, this.text, this.answers, this.notes, this.hands);
  }

  update() {
    this.data = JSON.parse(this.model.get("view_data"));
    const failed = this.data.error !== undefined;
    this.error.hidden = !failed;
    for (const part of [this.head, this.bar, this.bits, this.text, this.answers, this.notes, this.hands]) part.hidden = failed;
    if (failed) {
      this.error.textContent = this.data.error;
      return;
    }
    this.head.textContent = this.data.head;
    this.text.textContent = this.data.text;
    this.said.textContent = this.data.said;
    this.ask.hidden = !this.data.try;
    if (this.built !== this.data.kernel) this.build();
    for (const [button, on] of this.buttons) button.setAttribute("aria-pressed", String(on()));
    for (const [box, bit] of this.boxes) box.checked = (this.data.mask & bit) !== 0;
    this.answers.replaceChildren(
      this.column("What may happen", this.data.may.map(([what, answer]) => [answer === "no" ? "○" : "●", `${what}: ${answer}`, ""])),
      this.column("Where it is allowed", [
        ...this.data.where.map(([name, ok]) => [ok ? "✓" : "✕", name, ok ? "ok" : "bad"]),
        ...(this.data.complaint ? [["", this.data.complaint, "bad"]] : []),
      ]),
      this.column("Where the page may come from", this.data.zones.map((zone, i) => [String(i + 1), zone, ""])),
    );
    this.notes.replaceChildren(...this.data.notes.map((note) => el("li", "", note)));
    this.notes.hidden = !this.data.notes.length;
    this.root.dataset.drawn = String(1 + Number(this.root.dataset.drawn ?? 0));
  }

  // Boxes and buttons stay the same nodes while only the mask changes, so the focus stays where it is.
  build() {
    this.built = this.data.kernel;
    this.buttons = [];
    const button = (words, message, on) => {
      const node = Object.assign(el("button", "chip", words), { type: "button" });
      node.addEventListener("click", () => this.model.send(message));
      this.buttons.push([node, on]);
      return node;
    };
    const versions = el("span", "versions");
    for (const kernel of this.data.kernels)
      versions.append(button(kernel.replace("linux-", ""), { kernel }, () => this.data.kernel === kernel));
    this.bar.replaceChildren(
      ...this.data.presets.map(([name, mask]) => button(name, { mask }, () => this.data.mask === mask)),
      versions,
    );
    this.boxes = [];
    this.bits.replaceChildren(
      ...this.data.groups.map(([what, names]) => {
        const row = el("fieldset");
        row.append(el("legend", "", what));
        for (const [name, bit] of names) {
          const label = el("label");
          const box = Object.assign(el("input"), { type: "checkbox" });
          box.addEventListener("change", () => this.model.send({ mask: (this.data.mask ^ bit) >>> 0 }));
          label.append(box, name);
          this.boxes.push([box, bit]);
          row.append(label);
        }
        return row;
      }),
      el("p", "hint", "each name stands for __GFP_..."),
    );
  }

  column(title, rows) {
    const part = el("section");
    const list = el("ul");
    for (const [mark, words, cls] of rows) {
      const item = el("li", cls);
      const sign = el("b", "", mark);
      sign.setAttribute("aria-hidden", "true");
      item.append(sign, el("span", "", words), ...(mark === "✕" ? [el("span", "quiet", " forbidden")] : []));
      list.append(item);
    }
    part.append(el("h4", "", title), list);
    return part;
  }
}

const render = ({ model, el: root }) => mount(new Picker(model, root), model, root);

export default { render };
