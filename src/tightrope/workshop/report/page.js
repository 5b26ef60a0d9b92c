"use strict";
// The page without this script is complete but for the charts. It computes nothing: figures come ready in #charts.
(() => {
  const asked = new URLSearchParams(location.search).get("theme");
  const root = document.documentElement;
  if (asked === "dark" || asked === "light") root.dataset.theme = asked;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("charts").textContent);
  const narrow = () => window.innerWidth < 704;
  let charts = [];

  // Candidates: sort and search ------------------------------------------------------------------------

  const trials = byId("trials");
  const body = trials.tBodies[0];
  const heads = [...trials.tHead.rows[0].cells];
  const find = byId("find");
  const sort = byId("sort");
  let order = { key: "", down: false };

  const value = (row, place) => {
    const text = row.cells[place].dataset.value;
    return text === undefined ? null : place > 1 ? Number(text) : text;
  };

  function arrange() {
    const place = heads.findIndex((head) => head.dataset.key === order.key);
    const rows = [...body.rows].sort((a, b) => {
      if (place < 0) return a.dataset.place - b.dataset.place;
      const one = value(a, place), other = value(b, place);
      if (one === null || other === null) return (one === null) - (other === null); // the unmeasured come last
      return (order.down ? -1 : 1) * (one < other ? -1 : one > other ? 1 : 0);
    });
    body.append(...rows);
    for (const head of heads) {
      if (head.dataset.key === order.key) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    sort.value = order.key;
  }

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const states = new Set([...document.querySelectorAll("input[name=state]:checked")].map((box) => box.value));
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      const known = row.dataset.state === "original" || states.has(row.dataset.state);
      row.hidden = !(known && words.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    byId("matches").textContent = shown === body.rows.length ? "" : `${shown} of ${body.rows.length} shown.`;
  }

  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => {
      const key = head.dataset.key;
      order = order.key !== key ? { key, down: key === "speedup" || key === "cosine" }
        : { key, down: !order.down };
      arrange();
    });
    head.replaceChildren(button);
  }
  sort.addEventListener("change", () => {
    order = { key: sort.value, down: sort.value === "speedup" || sort.value === "cosine" };
    arrange();
  });
  find.addEventListener("input", filter);
  document.querySelectorAll("input[name=state]").forEach((box) => box.addEventListener("change", filter));

  // Figures as people read them ------------------------------------------------------------------------

  const digits = (number) => Number(number.toPrecision(3)).toString();
  function show(number, dimension) {
    if (dimension === "fraction") return `${digits(number * 100)} %`;
    if (dimension === "ratio") return `${digits(number)}x`;
    if (dimension === "rate") return `${digits(number)}/s`;
    const scales = { seconds: [["s", 1], ["ms", 1e-3], ["µs", 1e-6]], bytes: [["GB", 1e9], ["MB", 1e6], ["kB", 1e3], ["B", 1]] };
    const known = scales[dimension];
    if (!known || number === 0) return digits(number);
    const [unit, size] = known.find((scale) => Math.abs(number) >= scale[1]) || known[known.length - 1];
    return `${digits(number / size)} ${unit}`;
  }

  // Charts ---------------------------------------------------------------------------------------------

  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const faded = (hex, share) => hex + Math.round(share * 255).toString(16).padStart(2, "0");

  function axis(dimension, title) {
    return {
      title: { display: Boolean(title), text: title, color: colour("muted") },
      ticks: { color: colour("muted"), maxTicksLimit: narrow() ? 5 : 9, callback: (tick) => show(tick, dimension) },
      grid: { color: colour("line") },
      border: { color: colour("line") },
    };
  }

  function legend(display = true) {
    return { display, position: "top", align: "start", labels: { color: colour("ink"), usePointStyle: true, boxHeight: 8, padding: 14 } };
  }

  const tooltip = () => ({
    backgroundColor: colour("ink"), titleColor: colour("paper"), bodyColor: colour("paper"),
    padding: 12, boxPadding: 6, displayColors: false, titleFont: { weight: 600 },
  });

  function draw(name, config) {
    const canvas = byId(`chart-${name}`);
    canvas.parentElement.hidden = false;
    const still = { animation: false, maintainAspectRatio: false, responsive: true };
    charts.push(new Chart(canvas, { ...config, options: { ...still, ...config.options } }));
  }

  const KINDS = [
    ["chosen", "chosen", "accent", "star"], ["nearest", "nearest", "warn", "star"], ["frontier", "frontier", "accent", "circle"],
    ["timed", "timed", "grey", "circle"], ["judged", "judged, not timed", "grey", "triangle"],
    ["rejected", "rejected", "bad", "rect"], ["failed", "failed", "bad", "crossRot"], ["original", "original", "ink", "rectRot"],
  ];
  const byName = Object.fromEntries(data.axes.map((item) => [item.name, item]));
  const pick = { x: byId("axis-x"), y: byId("axis-y"), r: byId("axis-r") };

  const whiskers = {
    id: "whiskers",
    beforeDatasetsDraw(chart) {
      const { ctx, scales, chartArea: area } = chart;
      ctx.save();
      ctx.beginPath();
      ctx.rect(area.left, area.top, area.width, area.height);
      ctx.clip();
      ctx.lineWidth = 1.25;
      chart.data.datasets.forEach((set, index) => {
        if (!chart.isDatasetVisible(index)) return;
        ctx.strokeStyle = faded(set.borderColor, 0.45);
        for (const dot of set.data) {
          const { intervals } = dot.point;
          const wide = intervals[pick.x.value], high = intervals[pick.y.value];
          ctx.beginPath();
          if (wide) { ctx.moveTo(scales.x.getPixelForValue(wide[0]), scales.y.getPixelForValue(dot.y)); ctx.lineTo(scales.x.getPixelForValue(wide[1]), scales.y.getPixelForValue(dot.y)); }
          if (high) { ctx.moveTo(scales.x.getPixelForValue(dot.x), scales.y.getPixelForValue(high[0])); ctx.lineTo(scales.x.getPixelForValue(dot.x), scales.y.getPixelForValue(high[1])); }
          ctx.stroke();
        }
      });
      ctx.restore();
    },
  };

  function frontier() {
    const x = byName[pick.x.value], y = byName[pick.y.value], r = byName[pick.r.value];
    const known = data.points.filter((point) => x.name in point.values && y.name in point.values);
    const largest = Math.max(0, ...known.map((point) => (r && point.values[r.name]) || 0));
    const radius = (point) => {
      const share = r && largest > 0 && r.name in point.values ? Math.max(0, point.values[r.name]) / largest : 0.2;
      return (narrow() ? 3 : 4) + (narrow() ? 7 : 11) * Math.sqrt(share);
    };
    const sets = KINDS.map(([kind, label, ink, style]) => ({
      label, pointStyle: style === "star" ? "circle" : style,
      data: known.filter((point) => point.kind === kind)
        .map((point) => ({ x: point.values[x.name], y: point.values[y.name], r: radius(point), point })),
      borderColor: colour(ink),
      backgroundColor: faded(colour(ink), style === "star" ? 0.95 : kind === "frontier" ? 0.35 : 0.12),
      borderWidth: style === "star" ? 3 : 1.5, clip: 14,
    })).filter((set) => set.data.length);
    draw("frontier", {
      type: "bubble", data: { datasets: sets }, plugins: [whiskers],
      options: {
        layout: { padding: { right: 12 } },
        scales: { x: { ...axis(x.dimension, x.label), grace: "4%" }, y: { ...axis(y.dimension, y.label), grace: "6%" } },
        plugins: {
          legend: legend(),
          tooltip: {
            ...tooltip(),
            callbacks: {
              title: (items) => wrap(items[0].raw.point.recipe),
              label: (item) => [
                `${item.dataset.label}`,
                ...data.axes.filter((one) => one.name in item.raw.point.shown).map((one) => `${one.label}: ${item.raw.point.shown[one.name]}`),
                ...wrap(item.raw.point.reason),
              ],
            },
          },
        },
      },
    });
  }

  const wrap = (text) => (text.match(/.{1,48}(\s|$)|\S{1,48}/g) || []).map((line) => line.trim());

  function latency() {
    const names = [...new Set(data.latency.map((item) => item.name))];
    const lengths = [...new Set(data.latency.map((item) => item.tokens))].sort((a, b) => a - b);
    const shares = { p50: 1, p95: 0.55, p99: 0.25 };
    const sets = names.flatMap((name) => Object.entries(shares).map(([percentile, share]) => ({
      label: `${name} ${percentile}`, pointStyle: "rect",
      data: lengths.map((tokens) => data.latency.find((item) => item.name === name && item.tokens === tokens)?.[percentile] ?? null),
      backgroundColor: faded(colour(name === "original" ? "grey" : "accent"), share),
      borderRadius: 3, maxBarThickness: 34,
    })));
    draw("latency", {
      type: "bar", data: { labels: lengths.map((tokens) => `${tokens} tokens`), datasets: sets },
      options: {
        scales: { x: { ...axis("plain"), ticks: { color: colour("muted") }, grid: { display: false } }, y: { ...axis("seconds"), beginAtZero: true } },
        plugins: { legend: legend(), tooltip: { ...tooltip(), callbacks: { label: (item) => `${item.dataset.label}: ${show(item.raw, "seconds")}` } } },
      },
    });
  }

  // A legend takes its style from the points, which have no dashes.
  const dashed = (chart) => Chart.defaults.plugins.legend.labels.generateLabels(chart)
    .map((item) => ({ ...item, lineDash: chart.data.datasets[item.datasetIndex].borderDash }));

  function distribution() {
    const known = data.latency.filter((item) => item.quantiles.length > 1);
    const lengths = [...new Set(known.map((item) => item.tokens))].sort((a, b) => a - b);
    const dashes = [[], [8, 4], [2, 3], [8, 3, 2, 3]];
    const sets = known.map((item) => ({
      label: `${item.name}, ${item.tokens} tokens`, pointStyle: "line",
      data: item.quantiles.map((seconds, place) => ({ x: seconds, y: place / (item.quantiles.length - 1) })),
      borderColor: colour(item.name === "original" ? "grey" : "accent"),
      borderDash: dashes[lengths.indexOf(item.tokens) % dashes.length],
      borderWidth: 2, pointRadius: 0, pointHitRadius: 8,
    }));
    draw("distribution", {
      type: "line", data: { datasets: sets },
      options: {
        parsing: false,
        scales: {
          x: { ...axis("seconds", "time of one call"), type: "logarithmic" },
          y: { ...axis("fraction", "share of calls"), min: 0, max: 1 },
        },
        plugins: {
          legend: { ...legend(), labels: { ...legend().labels, pointStyleWidth: 30, generateLabels: dashed } },
          tooltip: {
            ...tooltip(),
            callbacks: {
              title: (items) => items[0].dataset.label,
              label: (item) => `${show(item.raw.y, "fraction")} of the calls took ${show(item.raw.x, "seconds")} at most`,
            },
          },
        },
      },
    });
  }

  function sensitivity() {
    const rows = data.sensitivity.slice(0, 60);
    const parts = rows.map((row) => row.layer.split("."));
    let shared = 0;
    while (parts.length > 1 && parts.every((part) => part.length > shared + 1 && part[shared] === parts[0][shared])) shared += 1;
    const limit = narrow() ? 24 : 60;
    const brief = (part) => {
      const text = part.slice(shared).join(".");
      return text.length > limit ? `…${text.slice(1 - limit)}` : text;
    };
    byId("chart-sensitivity").parentElement.style.height = `${rows.length * 20 + 40}px`;
    draw("sensitivity", {
      type: "bar",
      data: { labels: parts.map(brief), datasets: [{ data: rows.map((row) => row.loss), backgroundColor: faded(colour("accent"), 0.75), borderRadius: 3, barPercentage: 0.75 }] },
      options: {
        indexAxis: "y",
        scales: { x: { ...axis("plain"), beginAtZero: true }, y: { ticks: { color: colour("muted"), autoSkip: false, font: { size: 11 } }, grid: { display: false }, border: { color: colour("line") } } },
        plugins: { legend: legend(false), tooltip: { ...tooltip(), callbacks: { title: (items) => wrap(rows[items[0].dataIndex].layer) } } },
      },
    });
  }

  function redraw() {
    charts.forEach((chart) => chart.destroy());
    charts = [];
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    if (data.axes.length > 1) frontier();
    if (byId("chart-latency")) latency();
    if (byId("chart-distribution")) distribution();
    if (byId("chart-sensitivity")) sensitivity();
  }

  function choices() {
    const lengths = data.axes.filter((item) => item.name.startsWith("latency")).map((item) => item.name);
    const middle = lengths.includes("latency32") ? "latency32" : lengths[Math.floor(lengths.length / 2)];
    const first = { x: middle || "size", y: "loss", r: "memory" in byName ? "memory" : "size" };
    for (const [name, select] of Object.entries(pick)) {
      if (name === "r") select.add(new Option("all equal", ""));
      data.axes.forEach((item) => select.add(new Option(item.label, item.name)));
      if (first[name] in byName) select.value = first[name];
      select.addEventListener("change", redraw);
    }
  }

  document.querySelectorAll(".controls").forEach((box) => { box.hidden = false; });
  if (data.axes.length < 2) byId("trade-offs").hidden = true;
  choices();
  redraw();

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("(max-width: 703px)").addEventListener("change", redraw);
  let kept;
  addEventListener("beforeprint", () => { kept = root.dataset.theme; root.dataset.theme = "light"; redraw(); });
  addEventListener("afterprint", () => { if (kept) root.dataset.theme = kept; else delete root.dataset.theme; redraw(); });
})();
