// The box to try a model: search over the live stream, similarity and embedding over the API that programs use.

const tries = { ready: false, models: "", indexes: "" };

function tabs() {
  const all = [...document.querySelectorAll('[role="tab"]')];
  const choose = (tab, focus) => {
    for (const one of all) {
      const chosen = one === tab;
      one.setAttribute("aria-selected", chosen);
      one.tabIndex = chosen ? 0 : -1;
      byId(one.getAttribute("aria-controls")).hidden = !chosen;
    }
    picks();
    if (focus) tab.focus();
    const start = { "tab-similarity": compare, "tab-embed": embed }[tab.id];
    if (start) start();
  };
  all.forEach((tab, place) => {
    tab.onclick = () => choose(tab);
    tab.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const shown = all.filter((one) => !one.hidden);
      if (step) choose(shown[(shown.indexOf(all[place]) + step + shown.length) % shown.length], true);
    };
  });
  return (id) => choose(byId(id));
}

// What can be chosen where there are several: a model to embed with, an index to search.
function picks() {
  const searching = !byId("panel-search").hidden;
  byId("pick-model").hidden = searching || byId("model").length < 2;
  byId("pick-index").hidden = !searching || byId("index").length < 2;
}

function options(select, names) {
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  if (names.includes(chosen)) select.value = chosen;
}

function debounced(act, pause) {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(act, pause); };
}

async function vectors(texts) {
  const answer = await fetch("/v1/embeddings", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: byId("model").value, input: texts }),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error?.message || said.detail || answer.statusText);
  return { rows: said.data.map((item) => item.embedding), tokens: said.usage.prompt_tokens };
}

// Runs `act` so that only the latest of several answers is shown, and failures are said where the answer would be.
function latest(note, act) {
  let turn = 0;
  return async () => {
    const mine = ++turn, start = performance.now();
    try {
      const show = await act();
      if (mine !== turn) return;
      byId(note).classList.remove("failed");
      say(note, show ? `${show()} in ${seconds((performance.now() - start) / 1e3)}` : "");
    } catch (error) {
      if (mine !== turn) return;
      byId(note).classList.add("failed");
      say(note, error.message);
    }
  };
}

const row = (words, score, where, best = 1) => el("li", { class: where ? "" : "plain" },
  el("span", { class: "words" }, ...words), where ? el("span", { class: "where" }, where) : null,
  el("span", { class: "score" }, el("i", { style: { "--share": `${Math.max(0, Math.min(100, (100 * score) / best))}%` } }), score.toFixed(3)));

const compare = latest("similarity-note", async () => {
  const others = byId("others").value.split("\n").map((text) => text.trim()).filter(Boolean).slice(0, 50);
  const source = byId("source").value.trim();
  if (!source || !others.length) { byId("similarities").replaceChildren(); return null; }
  const { rows, tokens } = await vectors([source, ...others]);
  const unit = rows.map((one) => Math.hypot(...one) || 1);
  const scores = others.map((text, place) => ({
    text, score: rows[0].reduce((sum, value, at) => sum + value * rows[place + 1][at], 0) / unit[0] / unit[place + 1],
  }));
  return () => {
    byId("similarities").replaceChildren(...scores.sort((a, b) => b.score - a.score).map((one) => row([one.text], one.score)));
    return `${many(tokens, "token")}`;
  };
});

function stripes(canvas, values) {
  const height = 24, style = getComputedStyle(document.documentElement);
  canvas.width = values.length;
  canvas.height = height;
  const context = canvas.getContext("2d"), top = Math.max(...values.map(Math.abs)) || 1;
  values.forEach((value, place) => {
    context.globalAlpha = Math.abs(value) / top;
    context.fillStyle = style.getPropertyValue(value < 0 ? "--three" : "--one");
    context.fillRect(place, 0, 1, height);
  });
}

const embed = latest("embed-note", async () => {
  const text = byId("text").value;
  if (!text.trim()) { say("numbers", ""); return null; }
  const { rows: [vector], tokens } = await vectors([text]);
  return () => {
    stripes(byId("vector"), vector);
    say("numbers", `${vector.slice(0, 64).map((value) => value.toFixed(4).padStart(7)).join(" ")}${vector.length > 64 ? " …" : ""}`);
    return `${many(tokens, "token")}, ${vector.length} numbers`;
  };
});

// Marks the words of the question in a passage.
function marked(text, query) {
  const words = query.toLowerCase().split(/[^\p{L}\p{N}]+/u).filter((word) => word.length > 2);
  if (!words.length) return [text];
  const pattern = new RegExp(`(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "giu");
  return text.split(pattern).map((part, place) => (place % 2 ? el("mark", {}, part) : part));
}

function hits(state) {
  byId("search-note").classList.toggle("failed", Boolean(state.error));
  say("search-note", state.error ? state.error : !state.query ? "" : `${many(state.hits.length, "passage")} in ${seconds(state.took_s)}`);
  byId("hits").replaceChildren(...state.hits.map((hit) => row(marked(hit.text, state.query), hit.score, hit.title || hit.key, state.hits[0].score || 1)));
}

function search() {
  const ask = followSocket("/v1/live/search", hits);
  const query = byId("query");
  const now = () => ask({ query: query.value.trim(), k: 8, index: byId("index").value });
  query.oninput = debounced(now, 120);
  byId("index").onchange = now;
}

function offer(state) {
  const embedders = state.models.filter((model) => model.task === "embedding").map((model) => model.name);
  const key = embedders.join("\n");
  if (tries.models !== key) {
    options(byId("model"), embedders);
    tries.models = key;
    picks();
  }
  const searched = state.indexes.map((index) => index.name);
  if (tries.indexes !== searched.join("\n")) {
    options(byId("index"), searched);
    tries.indexes = searched.join("\n");
    picks();
  }
  if (tries.ready) return;
  tries.ready = true;
  const choose = tabs();
  const searchable = state.indexes.length > 0;
  byId("tab-search").hidden = !searchable;
  if (searchable) search();
  else choose("tab-similarity");
  const changes = { source: compare, others: compare, text: embed };
  for (const [id, act] of Object.entries(changes)) byId(id).oninput = debounced(act, 300);
  byId("model").onchange = () => { if (!byId("panel-embed").hidden) embed(); else if (!byId("panel-similarity").hidden) compare(); };
  document.querySelectorAll("#try form").forEach((form) => { form.onsubmit = (event) => event.preventDefault(); });
}
