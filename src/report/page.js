"use strict";
// The page is whole without this. It adds search, choice and sorting.
const form = document.getElementById("find");
const words = document.getElementById("words");
const sign = document.getElementById("sign");
const said = document.getElementById("found");
const rows = Array.from(document.querySelectorAll("tr[data-sign]"), row => ({
  row, sign: row.dataset.sign, isAll: row.closest("details.domain") !== null, text: null,
}));
const domains = Array.from(document.querySelectorAll("details.domain"));
let before = null;

const find = () => {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(word => word !== "");
  const isAsked = wanted.length > 0 || sign.value !== "";
  if (isAsked && before === null) before = domains.map(domain => domain.open);
  let found = 0;
  const withRows = new Set();
  for (const one of rows) {
    if (one.text === null) one.text = one.row.textContent.toLowerCase();
    const isFound = (sign.value === "" || sign.value === one.sign)
      && wanted.every(word => one.text.includes(word));
    one.row.hidden = !isFound;
    if (isFound && one.isAll) {
      found += 1;
      withRows.add(one.row.closest("details.domain"));
    }
  }
  domains.forEach((domain, at) => {
    domain.hidden = isAsked && !withRows.has(domain);
    if (isAsked) domain.open = withRows.has(domain);
    else if (before !== null) domain.open = before[at];
  });
  if (!isAsked) before = null;
  const count = found.toLocaleString("en");
  said.textContent = isAsked ? count + (found === 1 ? " mailbox" : " mailboxes") + " found" : "";
};

let timer = 0;
words.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(find, 120);
});
sign.addEventListener("change", find);
form.addEventListener("submit", event => {
  event.preventDefault();
  find();
});
form.addEventListener("reset", () => setTimeout(find));
const setAll = isOpen => domains.filter(domain => !domain.hidden)
  .forEach(domain => { domain.open = isOpen; });
document.getElementById("open").addEventListener("click", () => setAll(true));
document.getElementById("close").addEventListener("click", () => setAll(false));

// A link to a domain opens it.
const openTarget = () => {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", openTarget);
openTarget();

const valueOf = (row, at, isNumber) => {
  const text = row.cells[at].dataset.value ?? row.cells[at].textContent.trim();
  if (!isNumber) return text;
  const number = parseFloat(text.replace(/,/g, ""));
  return Number.isNaN(number) ? -1 : number;
};
// user9 stands before user10.
const collator = new Intl.Collator("en", { numeric: true });
const sort = (head, at) => {
  const isNumber = head.dataset.sort === "number";
  const now = head.getAttribute("aria-sort");
  const isUp = now === null ? !isNumber : now === "descending";
  const body = head.closest("table").tBodies[0];
  const sorted = Array.from(body.rows, row => ({ row, value: valueOf(row, at, isNumber) }));
  const order = isUp ? 1 : -1;
  sorted.sort((a, b) => order * (isNumber ? a.value - b.value : collator.compare(a.value, b.value)));
  body.append(...sorted.map(one => one.row));
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
};
for (const head of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => sort(head, head.cellIndex));
}
form.hidden = false;
