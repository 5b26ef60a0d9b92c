// Charts of a few lines: drawn in a square of 100 × 100 that is stretched over its place.

function path(values, top) {
  const step = 100 / Math.max(1, values.length - 1);
  let text = "", pen = false;
  values.forEach((value, place) => {
    if (value === null || value === undefined) { pen = false; return; }
    text += `${pen ? "L" : "M"}${(place * step).toFixed(2)} ${(100 - (100 * value) / top).toFixed(2)}`;
    if (!pen && (place + 1 >= values.length || values[place + 1] === null)) text += "h.01"; // a lone point is a dot
    pen = true;
  });
  return text;
}

function area(values, top) {
  const first = values.findIndex((value) => value !== null && value !== undefined);
  if (first < 0) return "";
  const filled = values.map((value, place) => (place < first ? null : value ?? 0));
  return `M${((100 * first) / Math.max(1, values.length - 1)).toFixed(2)} 100${path(filled, top).replace("M", "L")}L100 100Z`;
}

const highest = (lists) => Math.max(0, ...lists.flat().filter((value) => value !== null && value !== undefined));

function spark(svg, values, top) {
  const ceiling = top || highest([values]) * 1.1 || 1;
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "spark c1");
  svg.replaceChildren(drawn("path", { class: "area", d: area(values, ceiling) }), drawn("path", { class: "line", d: path(values, ceiling) }));
}

// The next round number.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((step) => step >= value * 0.999);
}

// series: [{name, values, format}], the first of which is filled. The legend shows the last value, or that under the pointer.
function timeline(box, legend, series, format, times) {
  const known = highest(series.map((one) => one.values));
  const top = nice(known > 0 ? known * 1.05 : 1);
  const svg = drawn("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const ticks = [0, 0.5, 1].map((share) => {
    svg.append(drawn("line", { class: "grid", x1: 0, x2: 100, y1: 100 - 100 * share, y2: 100 - 100 * share }));
    return el("span", { class: "tick", style: { bottom: `${100 * share}%` } }, format(top * share));
  });
  series.forEach((one, place) => {
    const group = drawn("g", { class: `c${place + 1}` });
    if (place === 0) group.append(drawn("path", { class: "area", d: area(one.values, top) }));
    group.append(drawn("path", { class: "line", d: path(one.values, top) }));
    svg.append(group);
  });
  const cursor = drawn("line", { class: "cursor", y1: 0, y2: 100, visibility: "hidden" });
  svg.append(cursor);
  box.replaceChildren(...ticks, svg, ...(known > 0 ? [] : [el("span", { class: "empty" }, "Nothing in the last minutes")]));
  box.setAttribute("role", "img");

  const tell = (place) => {
    legend.replaceChildren(
      ...(place === null ? [] : [el("span", {}, `${times(place)} ago`)]),
      ...series.map((one, number) => {
        const value = place === null ? one.values.findLast((item) => item !== null) : one.values[place];
        return el("span", { class: `c${number + 1}` }, el("i", { class: "dot" }), `${one.name} `, el("b", {}, format(value ?? null)));
      }),
    );
  };
  const point = () => {
    if (box.pointed === undefined || box.pointed === null) { cursor.setAttribute("visibility", "hidden"); tell(null); return; }
    const last = series[0].values.length - 1;
    const place = Math.round(Math.max(0, Math.min(1, box.pointed)) * last);
    const x = (100 * place) / Math.max(1, last);
    for (const [key, value] of Object.entries({ x1: x, x2: x, visibility: "visible" })) cursor.setAttribute(key, value);
    tell(place);
  };
  box.onpointermove = (event) => { const at = box.getBoundingClientRect(); box.pointed = (event.clientX - at.left) / at.width; point(); };
  box.onpointerleave = () => { box.pointed = null; point(); };
  point();
  box.setAttribute("aria-label", series.map((one) => `${one.name} ${format(one.values.findLast((item) => item !== null) ?? null)}`).join(", "));
}

// Parts of a whole: [{name, value, label, kind}], where label and kind stand for a long name. What is beyond the sixth shares a colour.
function parts(bar, body, items, whole, format) {
  const colour = (place, item) => (item.rest ? "c0" : `c${Math.min(place + 1, 6)}`);
  bar.replaceChildren(...items.map((item, place) => el("span", { class: colour(place, item), title: item.name, style: { width: `${(100 * item.value) / whole}%` } })));
  body.replaceChildren(...items.map((item, place) => el("tr", {},
    el("th", { scope: "row", class: colour(place, item), title: item.name }, el("i", { class: "dot" }),
      el("span", { class: "words" }, item.label || item.name, item.kind ? el("small", {}, item.kind) : null)),
    el("td", { class: "n" }, format(item.value)), el("td", { class: "n" }, share(item.value / whole)))));
}

function columns(box, pairs) {
  const used = pairs.map(([, number]) => number > 0);
  const shown = pairs.slice(0, Math.max(7, used.lastIndexOf(true) + 1));
  const top = Math.max(1, ...shown.map(([, number]) => number));
  box.replaceChildren(...shown.map(([bound, number], place) => {
    const low = place ? shown[place - 1][0] + 1 : 1;
    const name = bound === null ? `> ${shown[place - 1][0]}` : low >= bound ? `${bound}` : `–${bound}`;
    return el("div", { class: number ? "" : "none", title: `${many(number, "batch", "batches")} of ${low === bound ? bound : `${low} to ${bound ?? "more"}`} texts` },
      number ? count(number) : "", el("i", { style: { height: `${(70 * number) / top}%` } }), name);
  }));
}
