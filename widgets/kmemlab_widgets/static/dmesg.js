// Dmesg in the browser: a list of lines, of which one is chosen and explained.

class Log {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    root.classList.add("kml-dmesg");
    this.error = el("div", "failed");
    this.head = el("div", "head");
    this.sub = el("div", "sub");
    this.list = el("div", "log");
    this.list.tabIndex = 0;
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", "lines of the log: arrows choose one, J and K the next and the last that says something");
    this.words = el("p", "words");
    this.words.setAttribute("role", "status");
    this.hands = el("div", "hands");
    this.next = this.button("Next line that says something (J)", () => this.step(1));
    this.open = this.button("Paste a report", () => this.fold(this.form.hidden));
    this.back = this.button("Back to the log", () => this.model.send({ paste: "" }));
    this.form = el("div", "form");
    this.text = el("textarea");
    this.text.setAttribute("aria-label", "a report to be explained");
    this.text.rows = 6;
    this.explain = Object.assign(el("button", "", "Explain"), { type: "button" });
    this.explain.addEventListener("click", () => this.model.send({ paste: this.text.value }));
    this.form.append(this.text, this.explain);
    this.form.hidden = true;
    root.append(this.error, this.head, this.sub, this.list, this.words, this.hands, this.form);
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.choose(Number(row.dataset.n));
    });
  }

  button(words, does) {
    const button = Object.assign(el("button", "", words), { type: "button" });
    button.addEventListener("click", does);
    this.hands.append(button);
    return button;
  }

  fold(open) {
    this.form.hidden = !open;
    this.open.setAttribute("aria-expanded", String(open));
    if (open) this.text.focus();
  }

  update() {
    this.data = JSON.parse(this.model.get("view_data"));
    const failed = this.data.error !== undefined;
    this.error.hidden = !failed;
    for (const part of [this.head, this.sub, this.list, this.words, this.hands]) part.hidden = failed;
    if (failed) {
      this.error.textContent = this.data.error;
      return;
    }
    this.head.textContent = this.data.head;
    this.sub.textContent = this.data.sub;
    this.back.hidden = !this.data.pasted;
    const id = (this.id ??= `kml-log-${Math.random().toString(36).slice(2)}`);
    this.rows = this.data.lines.map(([text, words], n) => {
      const row = el("div", words ? "row says" : "row");
      row.id = `${id}-${n}`;
      row.dataset.n = n;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", "false");
      row.append(el("span", "n", String(n + 1)), el("span", "dot", words ? "●" : ""), el("span", "text", text || " "));
      return row;
    });
    this.list.replaceChildren(...this.rows);
    this.next.disabled = !this.data.lines.some(([, words]) => words);
    this.chosen = undefined;
    if (this.rows.length) this.choose(this.data.start);
    else this.words.textContent = "The log is empty.";
    this.root.dataset.drawn = String(1 + Number(this.root.dataset.drawn ?? 0));
  }

  choose(n) {
    if (n < 0 || n >= this.rows.length) return;
    this.rows[this.chosen]?.setAttribute("aria-selected", "false");
    this.chosen = n;
    const row = this.rows[n];
    row.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", row.id);
    // Only the list scrolls, never the notebook.
    if (row.offsetTop < this.list.scrollTop) this.list.scrollTop = row.offsetTop - 20;
    else if (row.offsetTop + row.offsetHeight > this.list.scrollTop + this.list.clientHeight)
      this.list.scrollTop = row.offsetTop + row.offsetHeight - this.list.clientHeight + 20;
    const words = this.data.lines[n][1];
    this.words.textContent = `${n + 1}: ${words || "this line adds nothing to the question"}`;
  }

  step(by) {
    for (let n = this.chosen + by; n >= 0 && n < this.rows.length; n += by)
      if (this.data.lines[n][1]) return this.choose(n);
  }

  key(event) {
    if (event.target !== this.list) return false;
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12 }[event.key];
    if (by) this.choose(Math.min(this.rows.length - 1, Math.max(0, this.chosen + by)));
    else if (event.key === "Home") this.choose(0);
    else if (event.key === "End") this.choose(this.rows.length - 1);
    else if (event.key === "j" || event.key === "J") this.step(1);
    else if (event.key === "k" || event.key === "K") this.step(-1);
    else return false;
    return true;
  }
}

const render = ({ model, el: root }) => mount(new Log(model, root), model, root);

export default { render };
