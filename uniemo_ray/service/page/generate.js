// Generating: reads the form, starts a generation and shows its previews and images.

import { cancelGeneration, getFile, startGeneration, watch } from "./api.js";
import { $, make, notice, tint, toBlob, wholePercents } from "./dom.js";
import { addToGallery } from "./gallery.js";
import { forget, keep } from "./kept.js";

const state = { model: null, running: null };

const sliders = () => [...document.querySelectorAll(".slider input")];

function weights() {
  return Object.fromEntries(sliders().filter((s) => Number(s.value) > 0).map((s) => [s.name, Number(s.value) / 100]));
}

export function heaviest(emotions) {
  return Object.entries(emotions).sort((a, b) => b[1] - a[1])[0]?.[0];
}

function showMix() {
  const chosen = weights();
  const total = Object.values(chosen).reduce((sum, weight) => sum + weight, 0);
  const shares = sliders().map((slider) => (total ? Number(slider.value) / 100 / total : 0));
  const texts = wholePercents(shares);
  for (const [i, slider] of sliders().entries()) {
    const row = slider.closest(".slider");
    const share = shares[i];
    row.classList.toggle("is-on", share > 0);
    slider.style.setProperty("--share", Number(slider.value) / 100);
    row.querySelector(".percent").textContent = texts[i];
    slider.ariaValueText = `${texts[i]} of the mixture`;
  }
  tint(document.body, heaviest(chosen) ?? "");
  $("paint").disabled = total === 0 || state.running !== null;
}

function choose(emotions) {
  for (const slider of sliders()) slider.value = Math.round(100 * (emotions[slider.name] ?? 0));
  showMix();
}

export function showSliders(model) {
  state.model = model;
  for (const id of ["make", "can-paint"]) $(id).hidden = model.paintable.length === 0;
  $("sliders").replaceChildren(
    ...model.emotions.map((name) => {
      const isKnown = model.paintable.includes(name);
      const input = make("input", { type: "range", name, min: 0, max: 100, step: 5, value: 0, ariaLabel: `Share of ${name}`, disabled: !isKnown });
      const button = make("button", { type: "button", textContent: name, ariaLabel: `Only ${name}`, disabled: !isKnown });
      const row = make("div", { className: "slider" }, button, input, make("span", { className: "percent" }));
      tint(row, name);
      row.classList.toggle("is-unknown", !isKnown);
      if (!isKnown) row.title = "This model cannot generate it: its training had no picture of it";
      input.addEventListener("input", showMix);
      button.addEventListener("click", () => choose({ [name]: 1 }));
      return row;
    }),
  );
  joinNames();
  $("steps").value = model.defaults.steps;
  $("steps").max = model.limits.steps;
  $("guidance").value = model.defaults.guidance;
  $("count").max = model.limits.n;
  const first = model.paintable.includes("awe") ? "awe" : model.paintable[0];
  choose(first ? { [first]: 1 } : {});
}

// One stop of the Tab key for all names: the arrow keys move between them.
function joinNames() {
  const names = [...document.querySelectorAll(".slider button:enabled")];
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  const reach = (chosen) => { for (const name of names) name.tabIndex = name === chosen ? 0 : -1; };
  reach(names[0]);
  for (const [i, name] of names.entries()) {
    name.addEventListener("focus", () => reach(name));
    name.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      names[(i + steps[event.key] + names.length) % names.length].focus();
    });
  }
}

function readRequest() {
  const subject = $("subject").value.trim();
  return {
    emotion: weights(),
    ...(subject && { prompt: subject.includes("{}") ? subject : `{} ${subject}` }),
    n: Number($("count").value),
    seed: Number($("seed").value),
    steps: Number($("steps").value),
    guidance: Number($("guidance").value),
    mix: $("meet").value,
    model: state.model.model,
  };
}

export function useSettings(request) {
  choose(request.emotion);
  $("subject").value = (request.prompt ?? "").replace(/^\{\} /, "");
  $("count").value = 1;
  $("seed").value = request.seed;
  $("steps").value = request.steps;
  $("guidance").value = request.guidance;
  $("meet").value = request.mix;
  $("make").scrollIntoView();
}

function prepareFrames(count) {
  const frames = Array.from({ length: count }, () => make("div", { className: "blank" }));
  $("easel").replaceChildren(...frames);
  return frames;
}

function put(frames, i, blob, text, isFinished) {
  const url = URL.createObjectURL(blob);
  const image = make("img", { src: url, alt: text, className: isFinished ? "" : "is-unfinished" });
  image.addEventListener("load", () => { if (!isFinished) URL.revokeObjectURL(url); });
  frames[i].replaceWith(image);
  frames[i] = image;
  return url;
}

function setRunning(running) {
  const focused = document.activeElement;
  state.running = running;
  $("progress").hidden = running === null;
  $("easel").ariaBusy = String(running !== null);
  if (running) $("cancel").hidden = false;
  if (running && focused === $("paint")) $("cancel").focus();
  showMix();
  if (!running && focused === $("cancel")) $("paint").focus();
  $("cancel").hidden = running === null;
}

// Screen readers read the status aloud, so it is set only when it changes.
function say(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

// The finished images that are not in the gallery yet, with their seeds. `images` is what the server says of them, if it does.
async function finish(frames, request, run, images) {
  for (let i = 0; i < request.n; i += 1) {
    if (!run.files.has(i) && images?.[i]?.url) await fetchImage(run, i);
    if (!run.files.has(i) || run.shown.has(i)) continue;
    run.shown.add(i);
    const url = put(frames, i, run.files.get(i), `Generated: ${heaviest(request.emotion)}`, true);
    addToGallery({ ...request, n: 1, seed: request.seed + i }, url, images?.[i]?.provenance);
  }
  if (run.files.size) for (const frame of $("easel").querySelectorAll(".blank, .is-unfinished")) frame.remove();
  return run.files.size;
}

async function fetchImage(run, i) {
  // image.url is not used, because it may point to the storage of another server
  run.files.set(i, await getFile(`v1/generations/${run.id}/images/${i}`));
}

// A generation of this page. `cancelled` fails as soon as somebody cancels it.
function makeRun(request) {
  const run = {
    id: null, isCancelled: false, stop: new AbortController(),
    steps: Array(request.n).fill(0), files: new Map(), shown: new Set(), fetching: [],
  };
  run.cancelled = new Promise((_, fail) => {
    run.cancel = () => { run.isCancelled = true; run.stop.abort(); fail(new Error("cancelled")); };
  });
  run.cancelled.catch(() => {});
  return run;
}

function showEvent(frames, request, run, name, data) {
  if (run.isCancelled) return;
  if (name === "lost") say("The connection to the server was lost. Trying again …");
  if (name === "step") {
    run.steps[data.image] = data.step / data.steps;
    $("bar").value = run.steps.reduce((sum, share) => sum + share, 0) / request.n;
    const which = request.n > 1 ? `Picture ${data.image + 1} of ${request.n}, step` : "Step";
    $("step").textContent = `${which} ${data.step} of ${data.steps}`;
    say("Generating …");
  }
  if (name === "preview" && !run.files.has(data.image)) {
    put(frames, data.image, toBlob(data.data, data.media_type), "Unfinished picture", false);
  }
  if (name === "image") {
    // fetched at once: what is finished is shown even if the server stops before the rest is
    const showing = fetchImage(run, data.image).then(() => {
      if (!run.isCancelled) put(frames, data.image, run.files.get(data.image), "Finished picture", true);
    });
    run.fetching.push(showing.catch(() => {}));
  }
}

async function follow(frames, request, run, started) {
  run.id = (await started).id;
  if (!run.isCancelled) keep(run.id, request);
  const last = await watch(run.id, (name, data) => showEvent(frames, request, run, name, data), run.stop.signal);
  await Promise.all(run.fetching);
  return last;
}

async function generate(request) {
  const shown = show(request, startGeneration(request));
  $("easel").scrollIntoView({ block: "nearest" });
  await shown;
}

// Goes on with a generation that was started before this page was loaded.
export async function resume(id, request) {
  if (state.running === null) await show(request, Promise.resolve({ id }));
}

async function show(request, started) {
  const frames = prepareFrames(request.n);
  const run = makeRun(request);
  setRunning(run);
  $("bar").removeAttribute("value");
  $("step").textContent = "";
  say("Waiting in the queue …");
  const following = follow(frames, request, run, started);
  following.catch(() => {});
  try {
    const last = await Promise.race([following, run.cancelled]);
    const count = await finish(frames, request, run, last.content.images);
    if (last.name === "done") {
      say(request.n > 1
        ? `Done, with seeds ${request.seed} to ${request.seed + request.n - 1}.` : `Done, with seed ${request.seed}.`);
    } else {
      const reason = last.name === "cancelled" ? "Cancelled." : last.content.problem?.detail ?? "The generation failed.";
      if (!count) {
        forget(run.id);
        $("easel").replaceChildren(make("p", { textContent: reason }));
      }
      say(reason);
    }
  } catch (error) {
    if (run.isCancelled) {
      forget(run.id);
      dropOnServer(started);
      $("easel").replaceChildren(make("p", { textContent: "Cancelled." }));
      say("Cancelled.");
      return;
    }
    const count = await finish(frames, request, run);
    if (!count) $("easel").replaceChildren(make("p", { textContent: "No picture was generated." }));
    say(count ? `${count} of ${request.n} pictures were generated.` : "");
    notice(error.message);
  } finally {
    setRunning(null);
  }
}

// A generation may be cancelled before the server has given it an id.
async function dropOnServer(started) {
  const generation = await started.catch(() => null);
  if (!generation) return;
  await cancelGeneration(generation.id).catch((error) => {
    if (error.status !== 404) notice(`The server could not be told to cancel: ${error.message}`);
  });
}

// The browser cannot show its own message at a field in closed settings.
function explainInvalid(event) {
  const field = event.target;
  const details = field.closest("details");
  if (details) details.open = true;
  const label = field.closest("label")?.firstChild.textContent.trim() ?? field.id;
  $("form-problem").textContent = `${label}: ${field.validationMessage}`;
  $("form-problem").hidden = false;
}

export function startGenerating() {
  $("generate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    notice("");
    $("form-problem").hidden = true;
    if (state.running === null) generate(readRequest());
  });
  $("dice").addEventListener("click", () => {
    $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;
  });
  $("cancel").addEventListener("click", () => state.running?.cancel());
  $("generate-form").addEventListener("invalid", explainInvalid, true);
  $("generate-form").addEventListener("input", () => { $("form-problem").hidden = true; });
}
