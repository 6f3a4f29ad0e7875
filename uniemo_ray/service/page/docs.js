// Renders /openapi.json, so that the documentation needs no other server.

import { $, make } from "./dom.js";

const theme = localStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;

const METHODS = ["get", "post", "delete"];

function table(rows) {
  return make("table", {}, ...rows.map((cells) =>
    make("tr", {}, ...cells.map((cell, i) => make(i ? "td" : "th", { textContent: cell })))));
}

// "integer, 1 to 20, default 5" of a JSON schema.
function kind(schema) {
  const limits = [
    schema.type ?? "",
    "minimum" in schema && "maximum" in schema ? `${schema.minimum} to ${schema.maximum}` : "",
    "default" in schema ? `default ${schema.default}` : "",
    schema.pattern ?? "",
  ];
  return limits.filter(Boolean).join(", ");
}

function operation(path, method, entry, schemas) {
  const parameters = (entry.parameters ?? []).map((p) => [p.name, p.in, p.description ?? "", kind(p.schema)]);
  const bodies = Object.entries(entry.requestBody?.content ?? {});
  const examples = bodies.flatMap(([, { schema }]) => (schemas[schema?.$ref?.split("/").pop()] ?? schema)?.examples ?? []);
  const kinds = bodies.map(([kind, body]) => [kind, body.schema?.$ref?.split("/").pop() ?? body.schema?.title ?? body.schema?.type ?? ""]);
  const isProblem = ([status]) => Number(status) >= 400;
  const answers = Object.entries(entry.responses).filter((answer) => !isProblem(answer)).map(([status, answer]) => [
    status, answer.description, Object.keys(answer.content ?? {}).join(", "),
  ]);
  const problems = Object.entries(entry.responses).filter(isProblem).map(([status]) => status);
  return make(
    "article", { className: "operation" },
    make("h3", {}, make("b", { textContent: method.toUpperCase() }), path),
    make("p", { textContent: entry.description ?? entry.summary ?? "" }),
    parameters.length ? table(parameters) : null,
    kinds.length ? make("h4", { textContent: "Body" }) : null,
    kinds.length ? table(kinds) : null,
    ...examples.map((example) => make("pre", { textContent: JSON.stringify(example, null, 1) })),
    make("h4", { textContent: "Responses" }),
    table([...answers, [problems.join(" "), "A problem", "application/problem+json"]]),
  );
}

const description = await (await fetch("openapi.json")).json();
$("intro").replaceChildren(make("h1", { textContent: "API" }), make("p", { textContent: description.info.description }));
for (const [path, operations] of Object.entries(description.paths)) {
  for (const method of METHODS.filter((name) => name in operations)) {
    $("operations").append(operation(path, method, operations[method], description.components.schemas));
  }
}
for (const [name, schema] of Object.entries(description.components.schemas)) {
  $("schemas").append(make("details", {}, make("summary", { textContent: name }), make("pre", { textContent: JSON.stringify(schema, null, 1) })));
}
