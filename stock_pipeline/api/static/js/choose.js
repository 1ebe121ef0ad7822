// A choice that only decides what the rest of the page shows takes effect without its button.
const form = document.querySelector("form[data-choose]");
if (form) {
  form.querySelector(".choose").hidden = true;
  form.addEventListener("change", () => form.requestSubmit());
}
