"use strict";
// The page of `dlmctl play`: forms built from the JSON schemas of the controls' parameters, runs, and their results.

const $ = (id) => document.getElementById(id);
let offer = null;
let texts = { yaml: "", python: "" };
let codeKind = "yaml", running = null;

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

// The schema of a value with references resolved and without "or null".
function resolved(schema, definitions) {
  if (schema.$ref) return resolved(definitions[schema.$ref.split("/").pop()] || {}, definitions);
  const choices = schema.anyOf || schema.oneOf;
  if (choices) {
    const others = choices.filter((choice) => choice.type !== "null");
    if (others.length === 1) return { ...schema, anyOf: undefined, ...resolved(others[0], definitions) };
  }
  return schema;
}

const inList = (values) => values.map((value) => (/[,"']|^\s|\s$/.test(value) ? JSON.stringify(value) : value)).join(", ");

function fromList(text) {
  const values = [];
  const item = /\s*(?:"((?:[^"\\]|\\.)*)"|([^,]+))\s*(?:,|$)/y;
  while (item.lastIndex < text.length) {
    const match = item.exec(text);
    if (!match) { values.push(text.slice(item.lastIndex).trim()); break; }
    const value = match[1] === undefined ? match[2].trim() : match[1].replace(/\\(.)/g, "$1");
    if (value) values.push(value);
    if (item.lastIndex >= text.length) break;
  }
  return values;
}

// JSON is valid YAML; the quotes of plain keys are removed.
const inYaml = (value) => JSON.stringify(value, null, 1).replace(/\n\s*/g, " ").replace(/"(\w+)":/g, "$1:");

// An input for one value: {element, read() -> {params?} or {written?}, or null for the default}.
function field(schema, initial) {
  const example = (schema.examples || [])[0];
  const shown = schema.default !== undefined && schema.default !== null ? schema.default : example;
  const hint = shown === undefined ? "" : typeof shown === "object" ? (Array.isArray(shown) && shown.every((item) => typeof item === "string") ? inList(shown) : inYaml(shown)) : String(shown);
  const options = schema.const !== undefined ? [schema.const] : schema.enum || (schema.type === "boolean" ? [true, false] : null);
  if (options) {
    const select = make("select", {}, make("option", { value: "" }, schema.default === undefined || schema.default === null ? "" : `default: ${schema.default}`));
    options.forEach((option, index) => select.append(make("option", { value: index, selected: option === initial }, String(option))));
    return { element: select, read: () => (select.value === "" ? null : { params: options[Number(select.value)] }) };
  }
  if (schema.type === "integer" || schema.type === "number") {
    const step = schema.type === "integer" ? 1 : "any";
    const input = make("input", { type: "number", min: schema.minimum, max: schema.maximum, step, placeholder: hint, value: initial });
    return { element: input, read: () => (input.value === "" ? null : { params: Number(input.value) }) };
  }
  if (schema.type === "string") {
    const input = make("input", { type: "text", placeholder: hint, value: initial, spellcheck: "false" });
    return { element: input, read: () => (input.value === "" ? null : { params: input.value }) };
  }
  if (schema.type === "array" && schema.items && schema.items.type === "string") {
    const input = make("input", { type: "text", placeholder: hint, value: initial === undefined ? undefined : inList(initial), spellcheck: "false" });
    return { element: input, read: () => (input.value.trim() === "" ? null : { params: fromList(input.value) }) };
  }
  const input = make("input", { type: "text", placeholder: hint || "YAML", value: initial === undefined ? undefined : inYaml(initial), spellcheck: "false" });
  return { element: input, read: () => (input.value.trim() === "" ? null : { written: input.value }) };
}

function labelled(name, schema, input, required) {
  const isList = schema.type === "array" && schema.items && schema.items.type === "string";
  const about = [schema.description, isList ? "separated by commas" : ""].filter(Boolean).join("; ");
  input.element.name = name;
  return make("label", { class: "wide" }, make("b", {}, required ? `${name} *` : name), about ? make("small", {}, about) : null, input.element);
}

// The card of one control, filled with `params`.
function addControl(name, params, weight = 1, unwanted = false) {
  const control = offer.controls.find((candidate) => candidate.name === name);
  const schema = control.schema, definitions = schema.$defs || {}, required = schema.required || [];
  const readers = [], first = [], more = [];
  for (const [key, raw] of Object.entries(schema.properties || {})) {
    const property = resolved(raw, definitions), input = field(property, params[key]);
    readers.push([key, input]);
    (required.includes(key) || params[key] !== undefined ? first : more).push(labelled(key, property, input, required.includes(key)));
  }
  const others = Object.fromEntries(Object.entries(params).filter(([key]) => !(key in (schema.properties || {}))));
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
    for (const [key, input] of readers) {
      const value = input.read();
      if (value && "params" in value) entry.params[key] = value.params;
      if (value && "written" in value) entry.written[key] = value.written;
    }
  });
}

// The card of an entry that no form can represent, as YAML.
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

// Fill the form with a bundled recipe. The number of texts and the seed are the user's own and do not change.
function startFrom(name) {
  const empty = { description: "", model: offer.default, candidates: 1, preset: "balanced", rest: "", controls: [] };
  const recipe = offer.recipes[name] || empty;
  $("controls").replaceChildren();
  $("about").hidden = !recipe.description;
  $("about").textContent = recipe.description;
  for (const id of ["model", "candidates", "preset", "rest"]) $(id).value = recipe[id];
  $("steps").value = "";  // the recipe's own steps, if any, are in `rest`
  $("rest").closest("details").open = recipe.rest !== "";
  for (const entry of recipe.controls) {
    const { weight = 1, ...rest } = entry;
    let [kindOf, params] = Object.entries(rest)[0], unwanted = false;
    if (kindOf === "not" && !Array.isArray(params) && Object.keys(params).length === 1) { unwanted = true; [kindOf, params] = Object.entries(params)[0]; }
    if (offer.controls.some((control) => control.name === kindOf) && !Array.isArray(params)) addControl(kindOf, params || {}, weight, unwanted);
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
    const code = await answer.json();
    texts = code.error ? { yaml: `# ${code.error}`, python: `# ${code.error}` } : code;
  } catch { texts = { yaml: "# the server does not answer", python: "# the server does not answer" }; }
  $("written").textContent = texts[codeKind];
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
  if (message) $("error").scrollIntoView({ block: "nearest" });
}

async function copy() {
  const button = $("copy");
  try { await navigator.clipboard.writeText(texts[codeKind]); button.textContent = "Copied"; }
  catch { getSelection().selectAllChildren($("written")); button.textContent = "Selected"; }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// ---- runs ----

async function run() {
  if (running) return;
  running = new AbortController();
  fail("");
  $("run").disabled = true; $("stop").hidden = false; $("progress").hidden = false;
  $("progress").removeAttribute("value");  // indeterminate while the model loads
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
    fail(running.signal.aborted ? "stopped." : `The server does not answer (${error.message}). Is dlmctl play still running?`);
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

// ---- results ----

const share = (value) => `${Math.round(100 * value)}%`;

function show(result) {
  const count = result.samples.length;
  const parts = [make("b", {}, `${count} ${count === 1 ? "text" : "texts"}`), ` in ${result.seconds.toFixed(1)} s`];
  if (result.success !== null) parts.push(", ", make("b", {}, share(result.success)), " satisfy every control");
  for (const [label, key] of [["lm-score", "lm_score"], ["acceptability", "acceptability"]]) {
    const known = result.samples.map((sample) => sample[key]).filter((value) => value !== undefined);
    if (known.length) parts.push(`, ${label} ${(known.reduce((a, b) => a + b) / known.length).toFixed(2)}`);
  }
  $("results").replaceChildren(make("p", { class: "totals" }, ...parts), ...result.samples.map(sampleCard));
}

function sampleCard(sample) {
  const checks = Object.entries(sample.checks).map(([name, check]) =>
    make("span", { class: check.passed ? "check" : "check fails", title: check.why }, `${check.passed ? "✓" : "✗"} ${name} ${share(check.score)} · ${check.why}`));
  const figure = (label, title) => checks.push(make("span", { class: "check plain", title }, label));
  if (sample.lm_score !== undefined) {
    figure(`lm-score ${sample.lm_score.toFixed(2)}`, "nats per token by the model's scorer; lower is more fluent");
    figure(`least likely ${sample.least_likely} ${sample.worst_nats.toFixed(1)}`, "nats of the word that the scorer finds least likely");
  }
  if (sample.acceptability !== undefined) figure(`acceptability ${sample.acceptability.toFixed(2)}`, "how likely a careful reader is to accept the text as a sound sentence, from 0 to 1");
  if (sample.rounds > 1) figure(`${sample.rounds} rounds`);
  const text = make("div", { class: "t" });
  text.innerHTML = sample.html;  // escaped by the server
  const box = make("article", { class: "card text" }, make("div", { class: "dlmctl" }, make("span", { class: "number" }, String(sample.index)), text), make("div", { class: "checks" }, ...checks));
  if (sample.problem) box.append(make("p", { class: "note" }, `${sample.words.length ? "guidance" : "not drawn"}: ${sample.problem}`));
  if (sample.trace) box.append(steps(sample.trace));
  return box;
}

function steps(trace) {
  const last = trace.words.length - 1;
  const slider = make("input", { type: "range", min: 0, max: last, value: last, "aria-label": "step" });
  const words = make("div", { class: "words" }), position = make("span", {}), play = make("button", { type: "button" }, "▶");
  const lines = [];
  const draw = () => {
    const at = Number(slider.value);
    position.textContent = `step ${at} of ${last}`;
    words.replaceChildren(...trace.words[at].flatMap((word, i) => [make("span", { class: trace.settled[at][i] ? "" : "open" }, word), " "]));
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
  const box = make("details", { class: "steps" }, make("summary", {}, "from noise to words"), make("div", { class: "bar" }, play, slider, position), words, curves.length ? make("div", { class: "curves" }, ...curves) : null);
  draw();
  return box;
}

// The curve of a control's energy over the steps: how far the model's estimate is from what the control requires.
function curve(name, values, lines) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const max = Math.max(...known), min = Math.min(...known, 0), range = max - min || 1;
  const points = values.map((value, at) => (value === null ? null : `${(100 * at) / (values.length - 1)},${(36 * (max - value)) / range + 2}`)).filter(Boolean);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 40"); svg.setAttribute("preserveAspectRatio", "none");
  const path = document.createElementNS(svg.namespaceURI, "path"), line = document.createElementNS(svg.namespaceURI, "line");
  path.setAttribute("d", `M${points.join(" L")}`);
  line.setAttribute("y1", 0); line.setAttribute("y2", 40);
  svg.append(path, line);
  lines.push([line, values.length]);
  return make("div", { title: "energy in nats: how far the model's estimate is from what the control requires" }, `${name}: energy, ${max.toFixed(1)} to ${known[known.length - 1].toFixed(1)}`, svg);
}

// ---- start ----

function listen() {
  $("start").addEventListener("change", () => startFrom($("start").value));
  $("add").addEventListener("change", () => {
    const name = $("add").value, control = offer.controls.find((candidate) => candidate.name === name);
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
    codeKind = tab.dataset.kind;
    for (const other of document.querySelectorAll("[role=tab]")) other.setAttribute("aria-selected", other === tab);
    $("written").textContent = texts[codeKind];
  });
}

async function begin() {
  listen();  // before the first await, or a click would make the browser submit the form itself
  try { offer = await (await fetch("api/offer")).json(); }
  catch { fail("The server does not answer. Is dlmctl play still running?"); return; }
  if ($("model").value === "") $("model").value = offer.default;  // keeps what the user has typed meanwhile
  for (const name of Object.keys(offer.models)) $("models").append(make("option", { value: name }));
  for (const [name, recipe] of Object.entries(offer.recipes)) $("start").append(make("option", { value: name, title: recipe.description }, name));
  for (const control of offer.controls) $("add").append(make("option", { value: control.name }, `${control.name}: ${control.summary}`));
  $("add").append(make("option", { value: " yaml" }, "another entry, as YAML"));
  if (offer.broken.length) {
    $("broken").hidden = false;
    $("broken").textContent = offer.broken.map((control) => `The control ${control.name} of ${control.origin} ${control.fault}`).join(" ");
  }
  $("add").options[0].textContent = "choose ...";
  $("run").disabled = false;
  changed();
}

begin();
