// Keeps the password in its field while the page asks for the second factor: the answer takes the place of the form.
// Without this script the password is typed again together with the code.
const main = document.getElementById("content");
sessionStorage.removeItem("one-time-link"); // used up, see link.js

main.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-keep-password]");
  if (!form) return;
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  const password = form.elements.password.value;
  let answer;
  try {
    answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "text/html" } });
  } catch {
    button.disabled = false;
    form.submit();
    return;
  }
  if (answer.redirected) { window.location.assign(answer.url); return; }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("content");
  main.replaceChildren(...document.adoptNode(fresh).childNodes);
  const again = main.querySelector("form[data-keep-password]");
  const code = again?.elements.code;
  if (code) again.elements.password.value = password;
  (code ?? again?.elements.password)?.focus();
});
