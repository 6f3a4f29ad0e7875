// Generating: reads the form, starts a generation and shows its previews and images.

import { cancelGeneration, getFile, startGeneration, watch } from "./api.js";
import { $, make, notice, percent, toBlob } from "./dom.js";
import { addToGallery } from "./gallery.js";

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
  for (const slider of sliders()) {
    const row = slider.closest(".slider");
    const share = total ? Number(slider.value) / 100 / total : 0;
    row.classList.toggle("is-on", share > 0);
    slider.style.setProperty("--share", Number(slider.value) / 100);
    row.querySelector(".percent").textContent = percent(share);
    slider.ariaValueText = `${percent(share)} of the mixture`;
  }
  document.body.dataset.emotion = heaviest(chosen) ?? "";
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
      row.dataset.emotion = name;
      row.classList.toggle("is-unknown", !isKnown);
      if (!isKnown) row.title = "This model cannot generate it: its training had no picture of it";
      input.addEventListener("input", showMix);
      button.addEventListener("click", () => choose({ [name]: 1 }));
      return row;
    }),
  );
  $("steps").value = model.defaults.steps;
  $("steps").max = model.limits.steps;
  $("guidance").value = model.defaults.guidance;
  $("count").max = model.limits.n;
  const first = model.paintable.includes("awe") ? "awe" : model.paintable[0];
  choose(first ? { [first]: 1 } : {});
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
  $("easel").scrollIntoView({ block: "nearest" });
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

async function finish(frames, request, generation) {
  for (const [i, image] of generation.images.entries()) {
    // image.url is not used, because it may point to the storage of another server
    const blob = await getFile(`/v1/generations/${generation.id}/images/${i}`);
    const url = put(frames, i, blob, `Generated: ${heaviest(request.emotion)}`, true);
    addToGallery({ ...request, n: 1, seed: image.seed }, url, image.provenance);
  }
}

async function generate(request) {
  const frames = prepareFrames(request.n);
  const steps = Array(request.n).fill(0);
  setRunning({ id: null });
  $("bar").removeAttribute("value");
  $("step").textContent = "";
  say("Waiting in the queue …");
  try {
    const generation = await startGeneration(request);
    setRunning({ id: generation.id });
    const last = await watch(generation.id, (name, data) => {
      if (name === "step") {
        steps[data.image] = data.step / data.steps;
        $("bar").value = steps.reduce((sum, share) => sum + share, 0) / request.n;
        const which = request.n > 1 ? `Picture ${data.image + 1} of ${request.n}, step` : "Step";
        $("step").textContent = `${which} ${data.step} of ${data.steps}`;
        say("Generating …");
      }
      if (name === "preview") put(frames, data.image, toBlob(data.data, data.media_type), "Unfinished picture", false);
    });
    if (last.name === "done") {
      await finish(frames, request, last.content);
      say(request.n > 1
        ? `Done, with seeds ${request.seed} to ${request.seed + request.n - 1}.` : `Done, with seed ${request.seed}.`);
    } else {
      const reason = last.name === "cancelled" ? "Cancelled." : last.content.problem?.detail ?? "The generation failed.";
      $("easel").replaceChildren(make("p", { textContent: reason }));
      say(reason);
    }
  } catch (error) {
    const isCancelled = Boolean(state.running?.isCancelled);  // a cancelled generation is no longer found
    $("easel").replaceChildren(make("p", { textContent: isCancelled ? "Cancelled." : "No picture was generated." }));
    say(isCancelled ? "Cancelled." : "");
    if (!isCancelled) notice(error.message);
  } finally {
    setRunning(null);
  }
}

export function startGenerating() {
  $("generate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    notice("");
    if (state.running === null) generate(readRequest());
  });
  $("dice").addEventListener("click", () => {
    $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;
  });
  $("cancel").addEventListener("click", () => {
    if (!state.running?.id) return;
    state.running.isCancelled = true;
    cancelGeneration(state.running.id).catch((error) => notice(error.message));
  });
}
