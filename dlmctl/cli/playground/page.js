"use strict";
// The page of `dlmctl play`: forms out of the JSON schemas of the controls' parameters, runs, and what came of them.

const $ = (id) => document.getElementById(id);
let offer = null;
let texts = { yaml: "", python: "" };
let kind = "yaml", running = null;

// make("p", {class: "note"}, "text", child, ...)
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// ---- forms ----

// The schema of a value without references and without "or null".
function settled(schema, definitions) {
  if (schema.$ref) return settled(definitions[schema.$ref.split("/").pop()] || {}, definitions);
  const choices = schema.anyOf || schema.oneOf;
  if (choices) {
    const others = choices.filter((one) => one.type !== "null");
    if (others.length === 1) return { ...schema, anyOf: undefined, ...settled(others[0], definitions) };
  }
  return schema;
}

const inList = (values) => values.map((value) => (/[,"']|^\s|\s$/.test(value) ? JSON.stringify(value) : value)).join(", ");

function fromList(text) {
  const found = [];
  const item = /\s*(?:"((?:[^"\\]|\\.)*)"|([^,]+))\s*(?:,|$)/y;
  while (item.lastIndex < text.length) {
    const match = item.exec(text);
    if (!match) { found.push(text.slice(item.lastIndex).trim()); break; }
    const value = match[1] === undefined ? match[2].trim() : match[1].replace(/\\(.)/g, "$1");
    if (value) found.push(value);
    if (item.lastIndex >= text.length) break;
  }
  return found;
}

// JSON is YAML; names and plain words go without quotes.
const inYaml = (value) => JSON.stringify(value, null, 1).replace(/\n\s*/g, " ").replace(/"(\w+)":/g, "$1:");

// An input for one value: {element, read() -> {params?} or {written?} or null where it is left as it is}.
function field(schema, given) {
  const example = (schema.examples || [])[0];
  const place = schema.default !== undefined && schema.default !== null ? schema.default : example;
  const hint = place === undefined ? "" : typeof place === "object" ? (Array.isArray(place) && place.every((one) => typeof one === "string") ? inList(place) : inYaml(place)) : String(place);
  const options = schema.const !== undefined ? [schema.const] : schema.enum || (schema.type === "boolean" ? [true, false] : null);
  if (options) {
    const select = make("select", {}, make("option", { value: "" }, schema.default === undefined || schema.default === null ? "" : `default: ${schema.default}`));
    options.forEach((option, at) => select.append(make("option", { value: at, selected: option === given }, String(option))));
    return { element: select, read: () => (select.value === "" ? null : { params: options[Number(select.value)] }) };
  }
  if (schema.type === "integer" || schema.type === "number") {
    const step = schema.type === "integer" ? 1 : "any";
    const input = make("input", { type: "number", min: schema.minimum, max: schema.maximum, step, placeholder: hint, value: given });
    return { element: input, read: () => (input.value === "" ? null : { params: Number(input.value) }) };
  }
  if (schema.type === "string") {
    const input = make("input", { type: "text", placeholder: hint, value: given, spellcheck: "false" });
    return { element: input, read: () => (input.value === "" ? null : { params: input.value }) };
  }
  if (schema.type === "array" && schema.items && schema.items.type === "string") {
    const input = make("input", { type: "text", placeholder: hint, value: given === undefined ? undefined : inList(given), spellcheck: "false" });
    return { element: input, read: () => (input.value.trim() === "" ? null : { params: fromList(input.value) }) };
  }
  const input = make("input", { type: "text", placeholder: hint || "YAML", value: given === undefined ? undefined : inYaml(given), spellcheck: "false" });
  return { element: input, read: () => (input.value.trim() === "" ? null : { written: input.value }) };
}

function labelled(name, schema, made, needed) {
  const isList = schema.type === "array" && schema.items && schema.items.type === "string";
  const about = [schema.description, isList ? "separated by commas" : ""].filter(Boolean).join("; ");
  made.element.name = name;
  return make("label", { class: "wide" }, make("b", {}, needed ? `${name} *` : name), about ? make("small", {}, about) : null, made.element);
}

// The card of one control; `given` are parameters to begin with.
function addControl(name, given, weight = 1, unwanted = false) {
  const control = offer.controls.find((one) => one.name === name);
  const schema = control.schema, definitions = schema.$defs || {}, needed = schema.required || [];
  const readers = [], first = [], more = [];
  for (const [key, raw] of Object.entries(schema.properties || {})) {
    const one = settled(raw, definitions), made = field(one, given[key]);
    readers.push([key, made]);
    (needed.includes(key) || given[key] !== undefined ? first : more).push(labelled(key, one, made, needed.includes(key)));
  }
  const others = Object.fromEntries(Object.entries(given).filter(([key]) => !(key in (schema.properties || {}))));
  if (schema.additionalProperties) {
    const rows = Object.entries(others).map(([key, value]) => `${key}: ${typeof value === "string" ? value : inYaml(value)}`);
    const box = make("textarea", { rows: Math.max(2, rows.length), spellcheck: "false", placeholder: "name: value" }, rows.join("\n"));
    readers.push(["", { read: () => (box.value.trim() === "" ? null : { written: box.value }) }]);
    first.push(labelled("values", { description: schema.additionalProperties.description || "a name and a value on each line" }, { element: box }));
  }
  const trained = offer.models[$("model").value];
  const missing = control.trainable && trained && !trained.includes(name) ? ` It needs trained weights, which the model ${$("model").value} does not have.` : "";
  const body = [make("p", { class: "note" }, `${control.summary}${missing}`), ...first];
  if (more.length) body.push(make("details", { class: "more" }, make("summary", {}, "more settings"), ...more));
  if (!first.length && more.length) body[1].open = true;
  card(name, control.origin, body, weight, unwanted, (entry) => {
    entry.name = name; entry.params = {}; entry.written = {};
    for (const [key, made] of readers) {
      const found = made.read();
      if (found && "params" in found) entry.params[key] = found.params;
      if (found && "written" in found) entry.written[key] = found.written;
    }
  });
}

// An entry that no form can hold, as YAML.
function addEntry(text) {
  const box = make("textarea", { rows: 5, spellcheck: "false" }, text);
  const note = make("p", { class: "note" }, "Any entry of `controls`, such as combinations with any and not.");
  card("as YAML", "", [note, box], 1, false, (entry) => { entry.entry = box.value; });
}

function card(name, origin, body, weight, unwanted, read) {
  const remove = make("button", { type: "button", title: `remove ${name}`, "aria-label": `remove ${name}` }, "×");
  const factor = make("input", { type: "number", min: 0, step: "any", value: weight });
  const not = make("input", { type: "checkbox", checked: unwanted });
  const foot = make("div", { class: "row foot" }, make("label", {}, "weight", factor), make("label", { class: "tick" }, not, "must not hold"));
  const box = make("section", { class: "card control", "data-name": name }, make("h2", {}, name, make("small", {}, origin), remove), ...body, foot);
  box.read = () => { const entry = { weight: factor.value === "" ? 1 : Number(factor.value), unwanted: not.checked }; read(entry); return entry; };
  remove.addEventListener("click", () => { box.remove(); changed(); });
  $("controls").append(box);
}

function form() {
  const number = (id) => ($(id).value === "" ? null : Number($(id).value));
  return {
    model: $("model").value.trim(), samples: number("samples"), seed: number("seed"), preset: $("preset").value,
    steps: number("steps"), candidates: number("candidates"), rest: $("rest").value,
    controls: [...$("controls").children].map((box) => box.read()),
  };
}

// How many texts and which seed stay as they are: those are the user's own, whatever is asked for.
function startFrom(name) {
  const empty = { description: "", model: offer.default, candidates: 1, preset: "balanced", rest: "", controls: [] };
  const recipe = offer.recipes[name] || empty;
  $("controls").replaceChildren();
  $("about").hidden = !recipe.description;
  $("about").textContent = recipe.description;
  for (const id of ["model", "candidates", "preset", "rest"]) $(id).value = recipe[id];
  $("steps").value = "";  // a recipe has its own among the rest
  $("rest").closest("details").open = recipe.rest !== "";
  for (const entry of recipe.controls) {
    const { weight = 1, ...rest } = entry;
    let [kindOf, params] = Object.entries(rest)[0], unwanted = false;
    if (kindOf === "not" && !Array.isArray(params) && Object.keys(params).length === 1) { unwanted = true; [kindOf, params] = Object.entries(params)[0]; }
    if (offer.controls.some((one) => one.name === kindOf) && !Array.isArray(params)) addControl(kindOf, params || {}, weight, unwanted);
    else addEntry(inYaml(entry));
  }
  changed();
}

// ---- the recipe as text ----

let due = 0;
function changed() {
  if (!offer) return;  // the form has no model yet
  clearTimeout(due);
  due = setTimeout(write, 200);
}

async function post(path, body, signal) {
  return fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
}

async function write() {
  try {
    const answer = await post("api/recipe", form());
    const found = await answer.json();
    texts = found.error ? { yaml: `# ${found.error}`, python: `# ${found.error}` } : found;
  } catch { texts = { yaml: "# the server does not answer", python: "# the server does not answer" }; }
  $("written").textContent = texts[kind];
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
  if (message) $("error").scrollIntoView({ block: "nearest" });
}

async function copy() {
  const button = $("copy");
  try { await navigator.clipboard.writeText(texts[kind]); button.textContent = "Copied"; }
  catch { getSelection().selectAllChildren($("written")); button.textContent = "Selected"; }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// ---- runs ----

async function run() {
  if (running) return;
  running = new AbortController();
  fail("");
  $("run").disabled = true; $("stop").hidden = false; $("progress").hidden = false;
  $("progress").removeAttribute("value");  // the model loads: no one knows how long
  try {
    const answer = await post("api/run", form(), running.signal);
    running.name = answer.headers.get("Run");
    if (!answer.ok) { fail((await answer.json()).error); return; }
    for await (const event of events(answer.body)) {
      if (event.progress) { $("progress").max = event.progress[1]; $("progress").value = event.progress[0]; }
      if (event.error) fail(event.error);
      if (event.result) show(event.result);
    }
  } catch (error) {
    fail(running.signal.aborted ? "stopped." : `The server does not answer (${error.message}). Does dlmctl play still run?`);
  } finally {
    running = null;
    $("run").disabled = false; $("stop").hidden = true; $("progress").hidden = true;
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

// ---- what came of it ----

const share = (value) => `${Math.round(100 * value)}%`;

function show(result) {
  const count = result.samples.length;
  const parts = [make("b", {}, `${count} ${count === 1 ? "text" : "texts"}`), ` in ${result.seconds.toFixed(1)} s`];
  if (result.success !== null) parts.push(", ", make("b", {}, share(result.success)), " satisfy every control");
  for (const [said, key] of [["lm-score", "lm_score"], ["acceptability", "acceptability"]]) {
    const known = result.samples.map((one) => one[key]).filter((one) => one !== undefined);
    if (known.length) parts.push(`, ${said} ${(known.reduce((a, b) => a + b) / known.length).toFixed(2)}`);
  }
  $("results").replaceChildren(make("p", { class: "totals" }, ...parts), ...result.samples.map(sample));
}

function sample(one) {
  const checks = Object.entries(one.checks).map(([name, check]) =>
    make("span", { class: check.passed ? "check" : "check fails", title: check.why }, `${check.passed ? "✓" : "✗"} ${name} ${share(check.score)} · ${check.why}`));
  const figure = (said, title) => checks.push(make("span", { class: "check plain", title }, said));
  if (one.lm_score !== undefined) {
    figure(`lm-score ${one.lm_score.toFixed(2)}`, "nats a token by the scorer beside the model; lower is more fluent");
    figure(`least likely ${one.least_likely} ${one.worst_nats.toFixed(1)}`, "nats of the word that the scorer finds least likely");
  }
  if (one.acceptability !== undefined) figure(`acceptability ${one.acceptability.toFixed(2)}`, "how likely a careful reader takes the text for a sound sentence, from 0 to 1");
  if (one.rounds > 1) figure(`${one.rounds} rounds`);
  const text = make("div", { class: "t" });
  text.innerHTML = one.html;  // made by the server, which escapes what the model wrote
  const box = make("article", { class: "card text" }, make("div", { class: "dlmctl" }, make("span", { class: "number" }, String(one.index)), text), make("div", { class: "checks" }, ...checks));
  if (one.problem) box.append(make("p", { class: "note" }, `${one.words.length ? "guidance" : "not drawn"}: ${one.problem}`));
  if (one.trace) box.append(steps(one.trace));
  return box;
}

function steps(trace) {
  const last = trace.words.length - 1;
  const slider = make("input", { type: "range", min: 0, max: last, value: last, "aria-label": "step" });
  const words = make("div", { class: "words" }), said = make("span", {}), play = make("button", { type: "button" }, "▶");
  const lines = [];
  const draw = () => {
    const at = Number(slider.value);
    said.textContent = `step ${at} of ${last}`;
    words.replaceChildren(...trace.words[at].flatMap((word, place) => [make("span", { class: trace.settled[at][place] ? "" : "open" }, word), " "]));
    for (const [line, count] of lines) { const x = count > 1 ? (100 * Math.min(at, count - 1)) / (count - 1) : 0; line.setAttribute("x1", x); line.setAttribute("x2", x); }
  };
  let timer = 0;
  play.addEventListener("click", () => {
    clearInterval(timer);
    slider.value = 0; draw();
    timer = setInterval(() => { slider.value = Number(slider.value) + 1; draw(); if (Number(slider.value) >= last) clearInterval(timer); }, Math.max(40, Math.min(250, 4000 / Math.max(1, last))));
  });
  slider.addEventListener("input", () => { clearInterval(timer); draw(); });
  const curves = Object.entries(trace.energies || {}).map(([name, values]) => curve(name, values, lines)).filter(Boolean);
  const box = make("details", { class: "steps" }, make("summary", {}, "from noise to words"), make("div", { class: "bar" }, play, slider, said), words, curves.length ? make("div", { class: "curves" }, ...curves) : null);
  draw();
  return box;
}

// How far the model's own estimate is from what a control wants, over the steps.
function curve(name, values, lines) {
  const known = values.filter((one) => one !== null);
  if (known.length < 2) return null;
  const most = Math.max(...known), least = Math.min(...known, 0), space = most - least || 1;
  const points = values.map((one, at) => (one === null ? null : `${(100 * at) / (values.length - 1)},${(36 * (most - one)) / space + 2}`)).filter(Boolean);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 40"); svg.setAttribute("preserveAspectRatio", "none");
  const path = document.createElementNS(svg.namespaceURI, "path"), line = document.createElementNS(svg.namespaceURI, "line");
  path.setAttribute("d", `M${points.join(" L")}`);
  line.setAttribute("y1", 0); line.setAttribute("y2", 40);
  svg.append(path, line);
  lines.push([line, values.length]);
  return make("div", { title: "energy in nats: how far the model's own estimate is from what the control wants" }, `${name}: energy, ${most.toFixed(1)} to ${known[known.length - 1].toFixed(1)}`, svg);
}

// ---- start ----

function listen() {
  $("start").addEventListener("change", () => startFrom($("start").value));
  $("add").addEventListener("change", () => {
    const name = $("add").value, control = offer.controls.find((one) => one.name === name);
    if (control) addControl(name, control.example || {});
    else if (name) addEntry("any:\n  - contains: {words: [tea]}\n  - contains: {words: [coffee]}");
    $("add").value = "";
    changed();
  });
  $("form").addEventListener("input", changed);
  $("form").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  $("stop").addEventListener("click", () => { running?.name && post("api/stop", { run: running.name }); running?.abort(); });
  $("copy").addEventListener("click", copy);
  for (const tab of document.querySelectorAll("[role=tab]")) tab.addEventListener("click", () => {
    kind = tab.dataset.kind;
    for (const other of document.querySelectorAll("[role=tab]")) other.setAttribute("aria-selected", other === tab);
    $("written").textContent = texts[kind];
  });
}

async function begin() {
  listen();  // before anything is waited for, or a click would make the browser send the form itself
  try { offer = await (await fetch("api/offer")).json(); }
  catch { fail("The server does not answer. Does dlmctl play still run?"); return; }
  if ($("model").value === "") $("model").value = offer.default;  // what was typed meanwhile stays
  for (const name of Object.keys(offer.models)) $("models").append(make("option", { value: name }));
  for (const [name, recipe] of Object.entries(offer.recipes)) $("start").append(make("option", { value: name, title: recipe.description }, name));
  for (const one of offer.controls) $("add").append(make("option", { value: one.name }, `${one.name}: ${one.summary}`));
  $("add").append(make("option", { value: " yaml" }, "another entry, as YAML"));
  if (offer.broken.length) {
    $("broken").hidden = false;
    $("broken").textContent = offer.broken.map((one) => `The control ${one.name} of ${one.origin} ${one.fault}`).join(" ");
  }
  $("add").options[0].textContent = "choose ...";
  $("run").disabled = false;
  changed();
}

begin();
