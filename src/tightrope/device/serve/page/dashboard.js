// The page shows what the server says of itself, first from #state and then from its stream of changes.

const TONES = { good: ["current"], accent: ["canary", "shadow"], warn: ["loading", "verifying", "warming"], bad: ["rolled_back", "failed"] };

// The history since there is one, a minute at least: a young server's chart is not an empty one.
function known(history) {
  const first = history.findIndex((point) => point.rate !== null);
  return history.slice(Math.min(first < 0 ? history.length : first, Math.max(0, history.length - 30)));
}

function glance(state) {
  const { metrics } = state, history = known(state.history), last = history[history.length - 1] || {};
  const past = (name) => history.map((point) => point[name]);
  say("rate", rate(last.rate ?? 0));
  say("rate-note", `${many(metrics.requests.work, "request")} since the start`);
  say("p50", seconds(metrics.requests.p50));
  say("p50-note", metrics.requests.p99 === null ? "no request yet" : `p95 ${seconds(metrics.requests.p95)} · p99 ${seconds(metrics.requests.p99)}`);
  say("queue", count(metrics.queue.requests));
  say("queue-note", `${many(metrics.queue.tokens, "token")} wait · ${many(metrics.connections, "connection")}`);
  const { resident_bytes: used, budget_bytes: budget, peak_bytes: peak } = metrics.memory;
  say("memory", bytes(used));
  say("memory-note", budget ? `of ${bytes(budget)} · peak ${bytes(peak)}` : `peak ${bytes(peak)}, no budget set`);
  spark(byId("spark-rate"), past("rate"));
  spark(byId("spark-p50"), past("p50"));
  spark(byId("spark-queue"), past("queue"));
  spark(byId("spark-memory"), past("memory"), budget || undefined);
}

// An owner's name in two lines: what it is called, and what it is.
function called(name) {
  const model = /^model:(.*?)(?:@(.*))?$/.exec(name), index = /^index (.*)$/.exec(name);
  if (model) return { label: model[1], kind: model[2] ? `version ${model[2]}` : "model" };
  return index ? { label: index[1].replace(/\.index$/, ""), kind: "index" } : {};
}

// Small bodies and requests come and go with each request: lines that jump about tell nobody anything.
const lasting = ({ name, value }) => value > (["bodies", "requests"].includes(name) ? 1e5 : 0);

function owners(state) {
  const { budget_bytes: budget, resident_bytes: used, owners: named } = state.metrics.memory;
  const items = Object.entries(named).map(([name, value]) => ({ name, value, ...called(name) })).filter(lasting).sort((a, b) => b.value - a.value);
  const reserved = items.reduce((sum, item) => sum + item.value, 0);
  const whole = Math.max(budget || 0, reserved, 1);
  say("memory-line", budget ? `${bytes(reserved)} reserved of ${bytes(budget)}; ${bytes(used)} resident` : `${bytes(reserved)} reserved; ${bytes(used)} resident`);
  if (budget > reserved) items.push({ name: "free", value: budget - reserved, rest: true });
  parts(byId("memory-bar"), byId("owners").tBodies[0], items, whole, bytes);
  byId("memory-bar").setAttribute("aria-label", items.map((item) => `${item.name} ${bytes(item.value)}`).join(", "));
}

function past(state) {
  const { server } = state, history = known(state.history);
  document.querySelectorAll(".times .from").forEach((one) => { one.textContent = `${duration(history.length * server.period_s)} ago`; });
  const column = (name) => history.map((point) => point[name]);
  const ago = (place) => duration((history.length - 1 - place) * server.period_s);
  const latencies = ["p50", "p95", "p99"].map((name) => ({ name, values: column(name) }));
  timeline(byId("latency-chart"), byId("latency-legend"), latencies, seconds, ago);
  const load = [{ name: "requests/s", values: column("rate") }, { name: "refused/s", values: column("refused") }, { name: "in the queue", values: column("queue") }];
  timeline(byId("load-chart"), byId("load-legend"), load, rate, ago);
}

function badge(state) {
  const kind = Object.keys(TONES).find((name) => TONES[name].includes(state)) || "";
  return el("span", { class: `badge ${kind}` }, state.replace("_", " "));
}

function trial(version) {
  const found = version.evidence;
  if (!found) return "";
  const parts = [];
  if (version.share) parts.push(`a share of ${percent(version.share)}`);
  if (found.agreement !== null) parts.push(`agreement ${found.agreement.toFixed(4)}`);
  if (found.latency_ratio !== null) parts.push(`${found.latency_ratio.toFixed(2)}× the time`);
  const words = [parts.join(" · ")];
  if (found.needed) words.unshift(el("span", { class: "meter", role: "img", "aria-label": `${found.seen} of ${found.needed} requests seen` }, el("i", { style: { width: `${Math.min(100, (100 * found.seen) / found.needed)}%` } })), ` ${count(found.seen)} of ${count(found.needed)} seen · `);
  return el("span", {}, ...words);
}

function models(state) {
  const { choices } = state.server, key = JSON.stringify([state.models, choices]);
  if (models.shown === key) return;
  models.shown = key;
  const none = el("p", { class: "muted" }, "No model is deployed: tightrope model deploy NAME BUNDLE");
  byId("models").replaceChildren(...(state.models.length ? state.models.map((model) => about(model, choices)) : [none]));
}

function about(model, choices) {
  const chosen = model.versions.map((version) => [version.version, choices[`${model.name}@${version.version}`]]).filter(([, choice]) => choice);
  return el("article", { class: "model" },
    el("h3", {}, model.name, el("small", {}, [model.task, model.width && `${model.width} wide`].filter(Boolean).join(", "))),
    el("table", { class: "versions" }, head("Version", "State", "Digest", "Engine", "Memory", told(model) ? "Evidence" : ""), el("tbody", {}, ...model.versions.map(versionRow))),
    ...chosen.map(([version, choice]) => el("p", { class: "note" }, `${chosen.length > 1 ? `${version}: ` : ""}${brief(choice)}`)));
}

const versionRow = (version) => el("tr", {},
  el("td", {}, version.version), el("td", {}, badge(version.state)), el("td", {}, el("code", {}, (version.digest || "").slice(0, 12))),
  el("td", {}, version.engine || ""), el("td", {}, version.bytes ? bytes(version.bytes) : ""), el("td", {}, version.reason || "", trial(version)));
const head = (...names) => el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name))));
const told = (model) => model.versions.some((version) => version.reason || version.evidence);
const brief = (choice) => choice.replace(/^([\d,]+ tokens) a batch: \1 at once/, "$1 a batch"); // it says so twice

function indexes(state) {
  const key = JSON.stringify(state.indexes);
  if (indexes.shown === key) return;
  indexes.shown = key;
  byId("indexes-section").hidden = !state.indexes.length;
  byId("indexes").tBodies[0].replaceChildren(...state.indexes.map((index) => el("tr", {},
    el("td", {}, index.name), el("td", {}, el("span", { class: `badge ${index.state === "current" ? "good" : "warn"}` }, index.state)),
    el("td", {}, many(index.passages, "passage")), el("td", {}, bytes(index.bytes)), el("td", {}, `${index.model}, version ${index.version}`))));
}

function work(state) {
  const { batch_texts: texts, batch_tokens: tokens, inference_seconds: compute, queue, cache, requests, refused } = state.metrics;
  columns(byId("batches"), texts.buckets);
  byId("batches").setAttribute("aria-label", `Batches by size; on average ${texts.mean === null ? "none yet" : many(texts.mean, "text")}`);
  say("batches-note", many(texts.count, "batch", "batches"));
  lines(byId("batch-figures"), [
    ["texts, mean", texts.mean === null ? "–" : digits(texts.mean)],
    ["tokens, mean", tokens.mean === null ? "–" : digits(tokens.mean)],
    ["wait, p50 · p99", `${seconds(queue.seconds.p50)} · ${seconds(queue.seconds.p99)}`],
    ["compute, p50 · p99", `${seconds(compute.p50)} · ${seconds(compute.p99)}`],
  ]);
  const rows = Object.entries(requests.by_api);
  byId("apis").tBodies[0].replaceChildren(...(rows.length ? rows : [["–", {}]]).map(([name, api]) => el("tr", {},
    el("th", { scope: "row" }, name), el("td", { class: "n" }, count(api.total)),
    ...["p50", "p95", "p99"].map((share) => el("td", { class: "n" }, name === "live" ? "–" : seconds(api[share]))))));
  const asked = cache.hits + cache.misses;
  lines(byId("refusals"), [
    ["refused", Object.entries(refused).filter(([, number]) => number).map(([name, number]) => `${count(number)} ${name.replace("_", " ")}`).join(", ") || "none"],
    ["answered from memory", asked ? `${percent(cache.hits / asked)} of ${many(asked, "text")}` : null],
    ["taken back", Object.entries(state.metrics.rollbacks).filter(([, number]) => number).map(([name, number]) => `${count(number)} for ${name}`).join(", ") || null],
  ]);
}

function machine(state) {
  const { server, metrics } = state, ofModels = state.models.flatMap((model) => model.versions.map((version) => `${model.name}@${version.version}`));
  const energy = Object.entries(metrics.energy_joules).map(([source, value]) => `${joules(value)} (${source})`);
  lines(byId("machine"), [
    ["processor", server.processor],
    ["temperature", metrics.temperature_celsius === null ? "not readable" : `${digits(metrics.temperature_celsius)} °C`],
    ["energy since the start", energy.join(", ") || "not readable"],
    ...Object.entries(server.choices).filter(([name]) => !ofModels.includes(name)),
    ["version", server.version],
  ]);
}

function show(state) {
  const { server } = state;
  const names = state.models.map((model) => model.name);
  const served = names.length > 2 ? many(names.length, "model") : names.join(", ");
  document.title = served ? `${served} · tightrope` : "tightrope";
  say("about", `${served ? `serves ${served} · ` : ""}up ${duration(server.uptime_s)}`);
  byId("ready").className = `badge ${server.ready ? "good" : "bad"}`;
  say("ready", server.ready ? "ready" : `not ready${server.reason ? `: ${server.reason}` : ""}`);
  byId("log-out").hidden = !server.keys;
  for (const part of [glance, owners, past, models, indexes, work, machine, offer]) part(state);
}

show(JSON.parse(byId("state").textContent));
followEvents("/v1/live/status", show, (up) => {
  byId("stream").className = `badge ${up ? "good" : "warn"}`;
  say("stream", up ? "live" : "reconnecting");
});
document.querySelector("#log-out button").onclick = async () => { await fetch("/logout", { method: "POST" }); location.reload(); };
