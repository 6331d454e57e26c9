// Formulas: Sphinx leaves TeX between \( \) or \[ \], or a whole environment, in elements of the class math.
const drawFormulas = () => {
  if (!window.katex) return;
  for (const box of document.querySelectorAll(".math")) {
    const text = [...box.childNodes].find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!text) continue;
    const [, inline, display] = text.data.trim().match(/^\\\(([^]*)\\\)$|^\\\[([^]*)\\\]$/) || [];
    const drawn = document.createElement("span");
    katex.render(inline ?? display ?? text.data, drawn, { displayMode: inline === undefined, throwOnError: false, strict: false });
    text.replaceWith(drawn);
  }
};

// What scrolls sideways can be scrolled with the keyboard too, and says what it is.
const KINDS = [["article pre", "Code or output"], ["div.math", "Formula"], ["article table, .cell_output .output", "Table"]];
const reachScrollers = () => {
  for (const [selector, name] of KINDS) {
    for (const box of document.querySelectorAll(selector)) {
      const scrolls = box.scrollWidth > box.clientWidth + 2 && /auto|scroll/.test(getComputedStyle(box).overflowX);
      if (scrolls === box.hasAttribute("tabindex")) continue;
      box.toggleAttribute("tabindex", scrolls);
      if (scrolls) box.tabIndex = 0;
      if (box.tagName === "TABLE") continue; // it stays a table, with its own caption
      for (const [key, value] of [["role", "region"], ["aria-label", name + ", scrolls sideways"]]) {
        if (scrolls) box.setAttribute(key, value); else box.removeAttribute(key);
      }
    }
  }
};

document.addEventListener("DOMContentLoaded", () => {
  // The theme binds only the first button of each side bar; those are in the header that book.css hides.
  for (const kind of ["primary", "secondary"]) {
    const [first, ...others] = document.querySelectorAll(`.${kind}-toggle`);
    for (const button of others) button.addEventListener("click", () => first.click());
  }
  drawFormulas();
  reachScrollers();
  for (const fold of document.querySelectorAll("article details")) fold.addEventListener("toggle", reachScrollers);
});
window.addEventListener("load", reachScrollers);
let waiting;
window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(reachScrollers, 150); });

// Paper folds nothing, and waits for no picture.
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("article details")) part.open = true;
  for (const picture of document.querySelectorAll("img[loading]")) picture.loading = "eager";
});
