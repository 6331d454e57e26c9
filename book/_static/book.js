// The theme binds only the first button of each side bar; those are in the header that book.css hides.
document.addEventListener("DOMContentLoaded", () => {
  for (const kind of ["primary", "secondary"]) {
    const [first, ...others] = document.querySelectorAll(`.${kind}-toggle`);
    for (const button of others) button.addEventListener("click", () => first.click());
  }
  // What scrolls sideways can be scrolled with the keyboard too.
  for (const box of document.querySelectorAll("article pre, article table, div.math")) {
    if (box.scrollWidth > box.clientWidth + 2) box.tabIndex = 0;
  }
});
// Paper folds nothing.
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("article details")) part.open = true;
});
