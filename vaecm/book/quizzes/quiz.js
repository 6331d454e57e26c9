window.vaecmQuiz = window.vaecmQuiz || ((quiz) => {
  const bytes = (text) => new TextEncoder().encode(text);
  const hash = (text) => bytes(text).reduce((h, b) => Math.imul(h ^ b, 0x01000193) >>> 0, 0x811c9dc5);
  const reason = (text) => new TextDecoder().decode(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
  const root = document.getElementById(`quiz-${quiz.chapter}`);
  const boxes = root.querySelectorAll("fieldset");
  const tries = quiz.keys.map(() => []); // what was chosen, question by question
  boxes.forEach((box, n) => box.addEventListener("change", (event) => {
    const right = hash(`${quiz.chapter}/${n}/${event.target.value}`) === quiz.keys[n];
    const said = box.querySelector(".why");
    tries[n].push(right);
    const told = right || tries[n].length > 1 ? reason(quiz.reasons[n]) : "Read again, and choose another.";
    said.innerHTML = `<b>${right ? "\u2713 Right." : "\u2717 No."}</b> ${told}`;
    const done = tries.filter((t) => t.includes(true)).length;
    if (done === boxes.length) {
      const first = tries.filter((t) => t[0]).length;
      root.querySelector(".score").textContent = `${first} of ${boxes.length} right at the first try.`;
    }
  }));
});
