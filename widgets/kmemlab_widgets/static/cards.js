// The question cards in the browser: draws the words and states Python sends, sends back what was chosen.
// Nothing is judged here, and the right answer is not here before it was given.

const el = (tag, cls, ...children) => {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

// Text with `backticks` as code; text nodes only, so nothing in it can become markup.
const words = (text) =>
  String(text ?? "")
    .split("`")
    .map((part, i) => (i % 2 ? el("code", "", part) : document.createTextNode(part)));

const button = (cls, label, act) => {
  const node = el("button", `kml-button ${cls}`, label);
  node.type = "button";
  node.addEventListener("click", act);
  return node;
};

const hidden = (text) => el("span", "kml-hidden", text);

let groups = 0;

class Card {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.awaiting = ""; // what to focus when the answer of Python comes
    this.group = `kml-group-${groups++}`;
    this.box = el("section", "kml-card");
    this.status = el("div", "kml-feedback");
    this.status.setAttribute("role", "status");
    this.status.tabIndex = -1;
    this.strip = el("div", "kml-strip");
    root.append(this.box, this.strip);
  }

  send(act, given, focus) {
    this.awaiting = focus;
    this.model.send({ do: act, given: given ?? [] });
  }

  draw() {
    const view = this.model.get("view");
    this.box.hidden = !view.kind || view.kind === "strip";
    this.root.classList.toggle("kml-predict", view.kind === "predict");
    this.root.classList.toggle("kml-exercise", view.kind === "exercise");
    if (view.kind === "predict") this.drawPredict(view);
    if (view.kind === "exercise") this.drawExercise(view);
    const target = this.awaiting;
    this.awaiting = "";
    if (target) this.root.querySelector(target)?.focus();
  }

  head(view) {
    const ask = el("p", "kml-ask", ...words(view.ask));
    const parts = [el("p", "kml-kicker", view.kicker), ask];
    if (view.code) parts.push(el("pre", "kml-code", view.code));
    return parts;
  }

  // --- predict ---------------------------------------------------------------------------------

  drawPredict(view) {
    const form = el("form", "kml-form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.press(view);
    });
    const set = el("fieldset", "kml-options");
    set.append(el("legend", "kml-hidden", `${view.kicker}. ${view.ask} ${view.code ?? ""}`));
    for (const option of view.options ?? []) set.append(this.option(view, option));
    (view.boxes ?? []).forEach((box, i) => set.append(this.blank(view, box, i)));
    this.fill(view.feedback, view.error);
    this.check = el("button", "kml-button kml-check", view.button);
    this.check.type = "submit";
    const actions = el("div", "kml-actions");
    if (view.button) actions.append(this.check);
    if (view.another)
      actions.append(button("kml-another", view.another, () => this.send("another", [], "input, select")));
    if (view.note) actions.append(el("span", "kml-note", ...words(view.note)));
    form.append(set, this.status, actions);
    this.box.replaceChildren(...this.head(view), form);
  }

  option(view, option) {
    const input = el("input", "kml-radio");
    input.type = view.multi ? "checkbox" : "radio";
    input.name = this.group;
    input.value = option.key;
    const tried = option.state === "wrong" || option.state === "tried";
    input.disabled = tried || view.done;
    input.checked = option.chosen && !tried;
    input.addEventListener("change", () => {
      this.check.textContent = "Check"; // choosing again is trying again
    });
    const said = { wrong: " (tried, not this one)", tried: " (tried, not this one)", right: " (right)" };
    const glyph = el("span", "kml-glyph", { wrong: "✕", tried: "✕", right: "✓" }[option.state] ?? "");
    glyph.setAttribute("aria-hidden", "true");
    const text = el("span", "kml-text", ...words(option.text));
    const label = el("label", "kml-option", input, glyph, text);
    if (said[option.state]) label.append(hidden(said[option.state]));
    if (option.state) label.dataset.state = option.state;
    return label;
  }

  blank(view, box, i) {
    let input;
    if (box.options.length) {
      input = el("select", "kml-blank", el("option", "", ""), ...box.options.map((one) => el("option", "", one)));
      input.value = box.value;
    } else {
      input = el("input", "kml-blank");
      input.type = "text";
      input.inputMode = "decimal";
      input.autocomplete = "off";
      input.value = box.value;
    }
    input.disabled = view.done;
    input.setAttribute("aria-label", box.label || view.ask);
    input.addEventListener("input", () => {
      this.check.textContent = "Check";
      delete row.dataset.state;
    });
    const glyph = el("span", "kml-glyph", { wrong: "✕", right: "✓" }[box.state] ?? "");
    glyph.setAttribute("aria-hidden", "true");
    const name = box.label ? el("span", "kml-text", ...words(box.label)) : null;
    const row = el("label", "kml-row", name, input, box.unit ? el("span", "kml-note", box.unit) : null, glyph);
    if (box.state) row.dataset.state = box.state;
    return row;
  }

  given(view) {
    if (view.boxes?.length) return [...this.box.querySelectorAll(".kml-blank")].map((input) => input.value);
    return [...this.box.querySelectorAll(".kml-radio:checked")].map((input) => input.value);
  }

  press(view) {
    if (!view.button) return;
    if (this.check.textContent === "Try again") this.send("again", [], "input:not(:disabled), select");
    else this.send("check", this.given(view), ".kml-feedback");
  }

  fill(said, error) {
    const tone = error ? "bad" : said?.tone;
    const parts = [];
    if (error) parts.push(...words(error));
    else if (said) {
      const glyph = { bad: "✕ ", ok: "✓ " }[tone];
      if (said.head) parts.push(el("strong", "", ...words(said.head)));
      else if (glyph) parts.push(hidden(glyph));
      parts.push(el("span", "", ...words(said.body)));
    }
    this.status.replaceChildren(...parts);
    this.status.dataset.tone = tone ?? "";
  }

  // --- exercise --------------------------------------------------------------------------------

  drawExercise(view) {
    const left = el("div", "kml-task", ...this.head(view));
    for (const hint of view.hints) {
      const line = el("p", "kml-hint-text", el("strong", "", "Hint: "), ...words(hint));
      line.tabIndex = -1;
      left.append(line);
    }
    const actions = el("div", "kml-actions");
    actions.append(button("kml-check", view.button, () => this.send("check", [], ".kml-feedback")));
    if (view.hint) actions.append(button("kml-hint", view.hint, () => this.send("hint", [], ".kml-hint-text:last-of-type")));
    if (view.note) actions.append(el("span", "kml-note", ...words(view.note)));
    left.append(actions);
    const rows = el("ul", "kml-rows");
    view.rows.forEach((row) => rows.append(this.row(row)));
    this.status.dataset.tone = view.error ? "bad" : "";
    this.status.replaceChildren(
      el("p", "kml-kicker", view.summary),
      ...(view.error ? words(view.error) : []),
      ...(view.todo ? [el("p", "kml-note", ...words(view.todo))] : []),
      rows,
    );
    if (view.printed) {
      const shown = el("details", "kml-printed", el("summary", "", "what your function printed"));
      shown.append(el("pre", "kml-code", view.printed));
      this.status.append(shown);
    }
    this.box.replaceChildren(el("div", "kml-two", left, this.status));
  }

  row(row) {
    const mark = el("span", "kml-mark", row.ok ? "✓" : "✕");
    mark.setAttribute("aria-hidden", "true");
    const told = el("div", "kml-told", el(row.ok ? "span" : "strong", "", ...words(row.tried)));
    told.append(hidden(row.ok ? " passes" : " does not pass"));
    if (!row.ok && row.kernel) told.append(el("code", "kml-kernel", row.kernel));
    if (!row.ok && row.why) told.append(el("p", "kml-why", ...words(row.why)));
    const node = el("li", "", mark, told, el("span", "kml-where", row.where));
    node.dataset.state = row.ok ? "ok" : "bad";
    return node;
  }

  // --- strip -----------------------------------------------------------------------------------

  drawStrip() {
    const strip = this.model.get("strip");
    if (!strip.cells) return this.strip.replaceChildren();
    const list = (cells, name) => {
      const node = el("ol", "kml-cells");
      node.setAttribute("aria-label", name);
      node.style.flexGrow = cells.length; // every cell of the strip gets the same width
      for (const cell of cells) {
        const [mark, late] = cell.text.split(" ·");
        const item = el("li", "kml-cell", el("span", "", mark), late ? el("span", "kml-late", ` ·${late}`) : null);
        item.setAttribute("aria-label", `${cell.label}: ${cell.words}`);
        if (cell.state) item.dataset.state = cell.state;
        if (cell.current) item.setAttribute("aria-current", "step");
        node.append(item);
      }
      return node;
    };
    const parts = [el("span", "kml-note kml-wide", strip.title), list(strip.cells, "questions")];
    if (strip.exercises.length)
      parts.push(el("span", "kml-note kml-wide", "exercises"), list(strip.exercises, "exercises"));
    if (strip.note) parts.push(el("p", "kml-note kml-stripnote", strip.note));
    this.strip.replaceChildren(...parts);
  }
}

function render({ model, el: host }) {
  const root = el("div", "kml kml-cards");
  // Plain keys pressed in a card are the card's: without this the notebook takes arrows, J, K and D for itself.
  // The notebook listens in the capture phase on the document and looks for this attribute, so it must be set
  // before: on the window. Ctrl+S and Shift+Enter stay the notebook's.
  const theirs = (event) =>
    event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter");
  const guard = (event) => {
    if (root.contains(event.target)) root.toggleAttribute("data-lm-suppress-shortcuts", !theirs(event));
  };
  window.addEventListener("keydown", guard, true);
  root.addEventListener("keydown", (event) => {
    if (theirs(event)) return;
    if (event.key === "Escape") root.closest(".jp-Cell, .jp-Notebook")?.focus();
    event.stopPropagation();
  });
  host.append(root);
  const card = new Card(model, root);
  const draw = () => card.draw();
  const strip = () => card.drawStrip();
  model.on("change:view", draw);
  model.on("change:strip", strip);
  draw();
  strip();
  return () => {
    window.removeEventListener("keydown", guard, true);
    model.off("change:view", draw);
    model.off("change:strip", strip);
  };
}

export default { render };
