// Takes the secret of a one-time link out of the address, where the history would keep it, and puts it into the form.
const KEPT = "one-time-link";
const field = document.querySelector("[data-link-field]");
const given = decodeURIComponent(window.location.hash.slice(1));
if (given) history.replaceState(null, "", window.location.pathname);

// After a refusal, such as of a weak password, the form comes again without the secret: this tab has kept it meanwhile.
const secret = given || sessionStorage.getItem(KEPT);
sessionStorage.removeItem(KEPT);
if (field && secret) {
  field.querySelector("input").value = secret;
  field.hidden = true;
  field.closest("form").addEventListener("submit", () => sessionStorage.setItem(KEPT, secret));
}
