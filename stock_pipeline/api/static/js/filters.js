// Filter forms answer while one types: the same page is asked for, and its results take the place of the old ones.
// Without this script the forms work by their button.
const WAIT = 250;

for (const form of document.querySelectorAll("form[data-filters]")) {
  const target = form.dataset.filters;
  let timer = 0;
  let latest = null;

  async function show(address, { focus = "" } = {}) {
    latest?.abort();
    const mine = latest = new AbortController();
    let answer;
    let text;
    try {
      answer = await fetch(address, { headers: { Accept: "text/html" }, signal: mine.signal });
      text = await answer.text();
    } catch {
      if (!mine.signal.aborted) window.location.assign(address);
      return;
    }
    if (!answer.ok || answer.redirected) { window.location.assign(address); return; }
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById(target);
    if (!fresh) { window.location.assign(address); return; }
    document.getElementById(target).replaceWith(document.adoptNode(fresh));
    history.replaceState(null, "", address);
    if (focus) document.querySelector(focus)?.focus();
  }

  function address() {
    const query = new URLSearchParams(new FormData(form));
    for (const [name, value] of [...query]) if (!value) query.delete(name);
    return `${form.getAttribute("action")}?${query}`;
  }

  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => show(address()), WAIT); });
  form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(timer); show(address()); });

  document.addEventListener("click", (event) => {
    const link = event.target.closest(`#${target} a.sort, #${target} .pages a`);
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const sorted = new URL(link.href);
    for (const name of ["sort", "order"]) {
      if (form.elements[name] && sorted.searchParams.has(name)) form.elements[name].value = sorted.searchParams.get(name);
    }
    const again = link.classList.contains("sort") ? `#${target} th:nth-child(${link.closest("th").cellIndex + 1}) a.sort` : "";
    show(link.getAttribute("href"), { focus: again });
  });
}
