"use strict";
// Without this script the page shows original and cwic, half and half.
for (const section of document.querySelectorAll("section.picture")) {
  const stage = section.querySelector(".stage");
  const pane = section.querySelector(".pane");
  const split = section.querySelector(".split");
  const handle = section.querySelector(".handle");

  const move = () => pane.style.setProperty("--at", split.value + "%");
  split.addEventListener("input", move);

  // The range input takes the keyboard; a pointer may take the border anywhere in the picture.
  const follow = (event) => {
    const box = pane.getBoundingClientRect();
    split.value = (100 * (event.clientX - box.left)) / box.width;
    move();
  };
  pane.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    // In a zoomed picture a finger scrolls; the handle still drags.
    const scrolls = event.pointerType === "touch" && stage.classList.contains("zoomed");
    if (scrolls && event.target !== handle) return;
    pane.setPointerCapture(event.pointerId);
    split.focus({ preventScroll: true });
    follow(event);
    event.preventDefault();
  });
  pane.addEventListener("pointermove", (event) => {
    if (pane.hasPointerCapture(event.pointerId)) follow(event);
  });

  const showOnly = (selector, key, value) => {
    for (const part of section.querySelectorAll(selector)) part.hidden = part.dataset[key] !== value;
  };
  const choose = {
    side(value) {
      showOnly("[data-codec]", "codec", value);
      section.querySelector(".tag.right").textContent = value;
    },
    zoom(value) {
      stage.classList.toggle("zoomed", value !== "0");
      pane.style.setProperty("--zoom", value);
    },
    heat(value) {
      showOnly("[data-heat]", "heat", value);
      section.querySelector(".opacity").hidden = value === "";
    },
    opacity(value) {
      for (const heat of section.querySelectorAll(".heat")) heat.style.opacity = value / 100;
    },
  };
  for (const input of section.querySelectorAll(".controls input")) {
    const kind = input.name.slice(input.name.lastIndexOf("-") + 1);
    input.addEventListener("input", () => choose[kind](input.value));
  }
}
