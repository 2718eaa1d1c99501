"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const traces = JSON.parse(document.getElementById("traces").textContent);

  // Filter the texts.
  const bar = document.querySelector(".bar"), items = [...document.querySelectorAll(".texts > li")];
  if (bar) {
    const none = document.querySelector(".none");
    const texts = items.map((item) => item.querySelector(".t").dataset.text.toLowerCase());
    const filter = () => {
      const failed = bar.elements.which.value === "failed", wanted = bar.elements.word.value.trim().toLowerCase();
      let shown = 0;
      items.forEach((item, at) => {
        item.hidden = (failed && !item.classList.contains("f")) || !texts[at].includes(wanted);
        shown += !item.hidden;
      });
      none.hidden = shown > 0;
    };
    bar.hidden = false;
    bar.addEventListener("input", filter);
    bar.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }

  // Play the steps of a text: its words and energies at the step of the slider.
  const wordElement = (tag, word) => {
    const element = document.createElement(tag);
    element.textContent = word;
    return element;
  };
  const player = (place) => {
    const trace = traces[place.dataset.text], last = trace.t.length - 1;
    const stage = place.querySelector(".stage"), slider = place.querySelector("input");
    const output = place.querySelector("output"), button = place.querySelector("button");
    const lines = place.parentElement.querySelectorAll(".now");
    let timer = 0;
    const show = (at) => {
      slider.value = at;
      const before = at ? trace.words[at - 1] : [];
      stage.replaceChildren();
      trace.words[at].forEach((word, number) => {
        const element = wordElement(trace.settled[at][number] ? "span" : "u", word);
        if (word !== before[number]) element.className = "new";
        stage.append(element, " ");
      });
      output.textContent = at === last ? "the finished text" : `step ${at + 1} of ${last}, t = ${trace.t[at].toFixed(2)}`;
      slider.setAttribute("aria-valuetext", output.textContent);
      for (const line of lines) {
        const box = line.ownerSVGElement.viewBox.baseVal, x = (box.width * at) / Math.max(1, last);
        line.setAttribute("x1", x);
        line.setAttribute("x2", x);
      }
    };
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      button.textContent = "Play";
    };
    const play = () => {
      if (timer) return stop();
      let at = Number(slider.value) === last ? 0 : Number(slider.value);
      show(at);
      button.textContent = "Stop";
      timer = setInterval(() => (at < last ? show(++at) : stop()), Math.max(60, 4000 / (last + 1)));
    };
    slider.max = last;
    slider.addEventListener("input", () => (stop(), show(Number(slider.value))));
    button.addEventListener("click", play);
    place.hidden = false;
    show(last);
  };
  document.querySelectorAll(".play").forEach(player);

  // Closed on the screen, open in print.
  const folds = [...document.querySelectorAll("details.d")];
  folds.forEach((fold) => (fold.open = false));
  const all = document.querySelectorAll("details");
  let open = [];
  addEventListener("beforeprint", () => {
    open = [...all].filter((fold) => fold.open);
    all.forEach((fold) => (fold.open = true));
  });
  addEventListener("afterprint", () => all.forEach((fold) => (fold.open = open.includes(fold))));
})();
