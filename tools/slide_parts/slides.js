// Formulas, one slide at a time, keys and swipes, notes below or in a window of their own.
const slides = [...document.querySelectorAll(".slide")];
const root = document.documentElement, body = document.body;
const speaker = location.search === "?speaker";
let now = 0, other = speaker ? window.opener : null, start = Date.now();

for (const box of document.querySelectorAll(".math")) {
  const tex = box.textContent;
  katex.render(tex, box, { displayMode: box.tagName === "DIV", throwOnError: false, strict: false });
}

// What is too large for its slide is set smaller; a formula that is too wide on its own.
const fit = (slide) => {
  const inner = slide.querySelector(".body");
  const over = () => [inner, ...inner.querySelectorAll(".words, .seen")].some((box) =>
    box.scrollHeight > box.clientHeight + 2 && (box === inner || box.className === "seen") || box.scrollWidth > box.clientWidth + 2);
  for (const box of inner.querySelectorAll(".katex-display, .katex-display > .katex")) box.style.fontSize = "";
  for (const box of inner.querySelectorAll(".katex-display"))
    if (box.scrollWidth > box.clientWidth + 1) box.style.fontSize = Math.max(0.5, 0.96 * box.clientWidth / box.scrollWidth) + "em";
  for (let size = 1; size >= 0.5; size -= 0.05) {
    slide.style.setProperty("--fit", size);
    if (!over()) break;
  }
};
const wide = () => window.innerWidth > 700;

const show = (next, tell = true) => {
  now = Math.max(0, Math.min(slides.length - 1, next));
  slides.forEach((slide, i) => slide.classList.toggle("now", i === now));
  const time = speaker ? ` · ${Math.floor((Date.now() - start) / 60000)} min` : "";
  document.getElementById("place").textContent = `${now + 1} / ${slides.length}${time}`;
  history.replaceState(null, "", `#s${now + 1}`);
  if (wide() && !body.className) fit(slides[now]); else slides[now].style.removeProperty("--fit");
  if (tell && other && !other.closed) other.postMessage({ slide: now }, "*");
};

const acts = {
  on: () => show(now + 1),
  back: () => show(now - 1),
  first: () => show(0),
  last: () => show(slides.length - 1),
  notes: () => {
    const on = body.classList.toggle("with-notes");
    document.querySelector("[data-do=notes]").setAttribute("aria-pressed", on);
    if (!on) body.removeAttribute("class");
    show(now);
  },
  speaker: () => { other = window.open(location.href.split(/[?#]/)[0] + `?speaker#s${now + 1}`, "speaker", "width=900,height=700"); },
  theme: () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  },
  full: () => document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen(),
};
const KEYS = { ArrowRight: "on", ArrowDown: "on", PageDown: "on", " ": "on", ArrowLeft: "back", ArrowUp: "back", PageUp: "back",
  Home: "first", End: "last", n: "notes", s: "speaker", d: "theme", f: "full" };

addEventListener("keydown", (event) => {
  const inControl = event.target.closest("button, summary") && (event.key === " " || event.key === "Enter");
  const act = acts[KEYS[event.key]];
  if (!act || inControl || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});
document.querySelector("nav").addEventListener("click", (event) => acts[event.target.dataset.do]?.());
let from = null;
addEventListener("touchstart", (event) => { from = event.changedTouches[0]; }, { passive: true });
addEventListener("touchend", (event) => {
  const to = event.changedTouches[0], x = to.clientX - from.clientX, y = to.clientY - from.clientY;
  if (Math.abs(x) > 50 && Math.abs(x) > 2 * Math.abs(y)) acts[x < 0 ? "on" : "back"]();
}, { passive: true });
addEventListener("message", (event) => { if (other && event.source === other && Number.isInteger(event.data.slide)) show(event.data.slide, false); });
addEventListener("resize", () => show(now, false));
addEventListener("hashchange", () => show(Number(location.hash.slice(2)) - 1));

if (speaker) body.className = "speaker";
if (speaker) setInterval(() => show(now, false), 30000);
const begin = () => show((Number(location.hash.slice(2)) || 1) - 1, false);
begin();
Promise.all([...document.fonts].map((font) => font.load())).then(begin); // those of slides that are not shown yet, for paper

// Paper shows all slides, each set to fit.
const paper = matchMedia("print");
const fitAll = () => slides.forEach(fit);
addEventListener("beforeprint", fitAll);
paper.addEventListener("change", (event) => { if (event.matches) fitAll(); });
