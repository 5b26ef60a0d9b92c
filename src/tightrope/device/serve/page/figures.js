// Elements and figures. Words from outside become text nodes and nothing else.

const byId = (id) => document.getElementById(id);

function el(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "style") for (const [property, text] of Object.entries(value)) made.style.setProperty(property, text);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Writes only what changed, so that nobody loses a selection and screen readers hear no repetition.
function say(id, text) {
  const place = typeof id === "string" ? byId(id) : id;
  if (place.textContent !== text) place.textContent = text;
}

const digits = (value) => {
  if (!value) return "0";
  const whole = Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(Math.abs(value)))));
  const text = value.toFixed(whole);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
};

function scaled(value, scales) {
  if (value === null || value === undefined) return "–";
  const [unit, size] = scales.find((scale) => Math.abs(value) >= scale[1]) || scales[scales.length - 1];
  return `${digits(value / size)} ${unit}`;
}

const seconds = (value) => (value === 0 ? "0 ms" : scaled(value, [["s", 1], ["ms", 1e-3], ["µs", 1e-6]]));
const bytes = (value) => scaled(value, [["GB", 1e9], ["MB", 1e6], ["kB", 1e3], ["B", 1]]);
const joules = (value) => scaled(value, [["kWh", 3.6e6], ["kJ", 1e3], ["J", 1], ["mJ", 1e-3]]);
const count = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));
const rate = (value) => (value === null || value === undefined ? "–" : value >= 100 ? count(value) : digits(value));
const share = (value) => `${(100 * value).toFixed(1)} %`;
const percent = (value) => `${digits(100 * value)} %`;
const many = (number, one, more) => `${count(number)} ${Math.round(number) === 1 ? one : more || `${one}s`}`;

function duration(value) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = units.findIndex(([, size]) => value >= size);
  if (at < 0) return "a moment";
  const [unit, size] = units[at];
  const rest = at + 1 < units.length ? Math.floor((value % size) / units[at + 1][1]) : 0;
  return `${Math.floor(value / size)} ${unit}${rest && at < 2 ? ` ${rest} ${units[at + 1][0]}` : ""}`;
}

// Lines of a <dl>; those without a value are left out.
function lines(list, pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach(([name, value], place) => {
    if (!list.children[place]) list.append(el("div", {}, el("dt"), el("dd")));
    say(list.children[place].firstChild, name);
    say(list.children[place].lastChild, value);
    list.children[place].classList.toggle("long", value.length > 40);
  });
}
