// Short messages at the edge of the page. Texts are set as text, never as markup.
const STAY = 12_000;

export function toast(text, { href, label, tone = "" } = {}) {
  const place = document.getElementById("toasts");
  if (!place) return;
  const box = document.createElement("div");
  box.className = `toast ${tone}`;
  const words = document.createElement("div");
  words.append(text);
  if (href) {
    const link = document.createElement("a");
    link.href = href;
    link.textContent = label;
    words.append(" ", link);
  }
  const close = document.createElement("button");
  close.type = "button";
  close.className = "ghost slim";
  close.textContent = "Close";
  close.addEventListener("click", () => box.remove());
  box.append(words, close);
  place.append(box);
  let timer = setTimeout(() => box.remove(), STAY);
  box.addEventListener("pointerenter", () => clearTimeout(timer));
  box.addEventListener("focusin", () => clearTimeout(timer));
  box.addEventListener("pointerleave", () => { timer = setTimeout(() => box.remove(), STAY); });
}
