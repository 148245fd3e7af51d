// Builds the form from the model's own description, and shows what the server says of one row. No library, no other host.
"use strict";
const at = (id) => document.getElementById(id);
let model = null;
const inputs = new Map(); // by column. No input has a name or an id: a column may be called as anything else of the page is.

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (at("key").value) headers.Authorization = `Bearer ${at("key").value}`;
  const answer = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  const found = await answer.json();
  if (answer.status === 401) at("key-field").hidden = false;
  if (!answer.ok) throw Object.assign(new Error(found.error), { column: found.column });
  return found;
}

function make(kind, properties = {}, ...children) {
  const element = Object.assign(document.createElement(kind), properties);
  element.append(...children);
  return element;
}

function inputOf(column) {
  const input = column.kind === "numeric" ? make("input", { inputMode: "decimal", autocomplete: "off" }) : make("select");
  inputs.set(column.name, input);
  if (column.kind === "numeric") {
    input.defaultValue = String(column.example);
    return input;
  }
  column.categories.forEach((category) => input.append(make("option", { value: category, textContent: category })));
  input.append(make("option", { value: "", textContent: "(missing)" }));
  return input;
}

function hintOf(column) {
  if (column.limits) return `${column.limits[0]} to ${column.limits[1]}; empty: missing`;
  if (column.seen) return `about ${column.seen[0]} to ${column.seen[1]} in the table; empty: missing`;
  return column.kind === "numeric" ? "a number; empty: missing" : "";
}

async function load() {
  const names = (await ask("v1/models")).models;
  model = await ask(`v1/models/${encodeURIComponent(names[0])}`);
  at("title").textContent = `${model.label || "Label"}: score one row`;
  at("about").textContent = `Model ${model.name}, ${model.title}, version ${model.version}`;
  inputs.clear();
  at("fields").replaceChildren(...model.columns.map((column) =>
    make("label", { className: "field" }, make("span", { textContent: column.name }), inputOf(column),
      make("small", { textContent: hintOf(column) }))));
  at("score").disabled = false;
  at("error").hidden = true;
}

function row() {
  const cells = Object.create(null); // without a prototype "__proto__" is a name as any other
  for (const [name, input] of inputs) cells[name] = input.value === "" ? null : input.value;
  return cells;
}

function fail(error) {
  at("error").textContent = error.message;
  at("error").hidden = false;
  const input = inputs.get(error.column);
  if (input) {
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

// The probability in the population: the same formula as in serving/scorer.py. Without a base rate it is the model's own.
function corrected(share) {
  if (!model.correction) return share;
  const { base_rate: base, sample_rate: sample } = model.correction;
  const odds = share * (base / (1 - base)) * ((1 - sample) / sample);
  return odds / (1 - share + odds);
}

function signed(number, exact) {
  const shown = exact ? Math.abs(number).toFixed(2) : `${(100 * Math.abs(number)).toFixed(1)} pp`;
  return `${number < 0 ? "\u2212" : "+"}${shown}`;
}

function show(prediction, cells) {
  const { label, columns, method, usual } = prediction.explanation;
  const share = (prediction.corrected_probabilities || prediction.probabilities)[label];
  const threshold = model.threshold === null ? null : corrected(model.threshold);
  const exact = method === "exact";
  at("of").textContent = `Probability of ${model.label || "label"} = ${label}`;
  at("probability").textContent = percent(share);
  at("level").style.width = percent(share).replace(" ", "");
  at("mark").hidden = threshold === null;
  at("mark").style.left = `${100 * (threshold || 0)}%`;
  const limit = threshold === null ? "the most probable class" : `the threshold is ${percent(threshold)}`;
  at("correction").hidden = !model.correction;
  if (model.correction) {
    at("correction").textContent = `For a population with ${percent(model.correction.base_rate)} ${label}. ` +
      `The rows of the training had ${percent(model.correction.sample_rate)}; among such rows it is ${percent(prediction.probabilities[label])}.`;
  }
  at("decision").replaceChildren("Decision: ", make("strong", { textContent: prediction.label }), ` (${limit})`);
  const pushes = Object.entries(columns).filter(([, push]) => Math.abs(push) >= (exact ? 0.005 : 0.0005)).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const longest = Math.max(...pushes.map(([, push]) => Math.abs(push)), 1e-9);
  at("reasons").replaceChildren(...pushes.map(([name, push]) => {
    const level = make("div");
    level.style.width = `${(100 * Math.abs(push)) / longest}%`;
    return make("li", { className: push > 0 ? "up" : "down" },
      make("span", {}, make("b", { textContent: name }), make("i", { textContent: ` ${cells[name] ?? "missing"}` })),
      make("div", { className: "bar" }, level), make("span", { className: "number", textContent: signed(push, exact) }));
  }));
  if (!pushes.length) at("reasons").replaceChildren(make("li", { textContent: "Nothing to speak of: this row is much like the usual one." }));
  at("method").textContent = exact
    ? `Contributions to the log-odds, exact: they add up to the difference from the usual row, which has ${percent(corrected(usual))}.`
    : `An ablation: how far the probability changes if this value alone is the usual one (mean or most frequent). ` +
      `The changes do not add up; the usual row has ${percent(corrected(usual))}.` +
      (model.correction ? " The changes are those among rows like the training's." : "");
  at("empty").hidden = true;
  at("answer").hidden = false;
}

async function score() {
  at("error").hidden = true;
  document.querySelectorAll("[aria-invalid]").forEach((each) => each.removeAttribute("aria-invalid"));
  const cells = row();
  const answer = await ask(`v1/models/${encodeURIComponent(model.name)}:explain`, { instances: [cells] });
  show(answer.predictions[0], cells);
  if (window.innerWidth < 768) at("result").scrollIntoView({ behavior: "smooth" });
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (model) score().catch(fail);
});
at("key").addEventListener("change", () => { if (!model) load().catch(fail); });
load().catch(fail);
