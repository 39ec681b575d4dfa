// What the panels' modules share. Python puts it before each: a module that Python sends cannot import its neighbours.

const el = (tag, cls, text) => {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  if (text !== undefined) node.textContent = text;
  return node;
};

// Keys that stay the notebook's: Ctrl+S, Shift+Enter.
const theirs = (event) =>
  event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter");

// Tell the notebook's shortcuts to leave the panel's keys alone; gives the function that ends it. The attribute is set
// in the capture phase, before whoever looks for it. It does not replace stopPropagation() in the panel.
const keepKeys = (root) => {
  const guard = (event) => {
    if (root.contains(event.target)) root.toggleAttribute("data-lm-suppress-shortcuts", !theirs(event));
  };
  window.addEventListener("keydown", guard, true);
  return () => window.removeEventListener("keydown", guard, true);
};

// Show a panel that has update() and perhaps key(event), which says whether the key was its own, and end(). Gives the
// function that takes it down. ``also`` names other traits and what to do when they change.
const mount = (panel, model, root, also = {}) => {
  const heard = Object.entries({ view_data: () => panel.update(), ...also });
  panel.update();
  for (const [trait, change] of heard) model.on(`change:${trait}`, change);
  const release = keepKeys(root);
  root.addEventListener("keydown", (event) => {
    if (theirs(event) || event.key === "Tab") return;
    if (event.key === "Escape") root.closest(".jp-Cell, .jp-Notebook")?.focus();
    else if (panel.key?.(event)) event.preventDefault();
    event.stopPropagation();
  });
  return () => {
    for (const [trait, change] of heard) model.off(`change:${trait}`, change);
    release();
    panel.end?.();
  };
};
