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
