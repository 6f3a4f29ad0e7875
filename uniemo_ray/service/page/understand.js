// Understanding: sends a picture and shows its emotions, scenes, objects and attention maps.

import { understand } from "./api.js";
import { $, make, notice, percent, tint } from "./dom.js";

const state = { model: "default", limits: null, latest: 0, attention: null, url: null, file: null };
const HEIC = /\.(heic|heif)$/i;

export function showEmotions(emotions) {
  $("bars").replaceChildren(
    ...emotions.map((name) => {
      const row = make(
        "li", {},
        make("span", { textContent: name }),
        make("span", { className: "track", ariaHidden: "true" }, make("i")),
        make("span", { className: "percent", textContent: "–" }),
      );
      tint(row, name);
      return row;
    }),
  );
}

// The results belong to one model, so a change of the model sends the picture again.
export function useModel(model) {
  state.model = model.model;
  state.limits = model.limits;
  const seen = model.trained_on ? `This model was trained on ${model.trained_on}. ` : "";
  const names = model.scenes.length && model.objects.length
    ? `It knows ${model.scenes.length} scenes and ${model.objects.length} objects, and takes everything else for one of them.` : "";
  $("knows").textContent = seen + names;
  $("knows").hidden = !seen;
  if (state.file) understandFile(state.file);
}

function clear() {
  delete $("verdict").dataset.emotion;
  for (const row of $("bars").children) {
    row.classList.remove("is-top");
    row.querySelector("i").style.setProperty("--share", 0);
    row.querySelector(".percent").textContent = "–";
  }
  $("found").hidden = true;
  state.attention = null;
}

function showResult(seen) {
  const verdict = $("verdict");
  verdict.replaceChildren("Mostly ", make("em", { textContent: seen.top }), seen.valence ? `, with ${seen.valence} valence.` : ".");
  tint(verdict, seen.top);
  for (const row of $("bars").children) {
    const share = seen.emotions[row.dataset.emotion];
    row.classList.toggle("is-top", row.dataset.emotion === seen.top);
    row.querySelector("i").style.setProperty("--share", share);
    row.querySelector(".percent").textContent = percent(share);
  }
  for (const kind of ["scenes", "objects"]) {
    $(kind).replaceChildren(
      ...seen[kind].filter(({ score }, i) => i === 0 || score >= 0.01).map(({ name, score }) =>
        make("span", { className: "chip" }, name.replaceAll("_", " "), make("small", { textContent: percent(score) }))),
    );
  }
  $("found").hidden = seen.scenes.length + seen.objects.length === 0;
  state.attention = seen.attention ? { ...seen.attention, width: seen.width, height: seen.height } : null;
  for (const choice of document.querySelectorAll("input[name=layer]")) {
    choice.disabled = choice.value !== "none" && !state.attention;
  }
}

function showLayer() {
  const layer = document.querySelector("input[name=layer]:checked").value;
  const overlay = $("overlay");
  const isOn = layer !== "none" && state.attention !== null;
  overlay.hidden = !isOn;
  $("picture").classList.toggle("is-dimmed", isOn);
  $("legend").hidden = !isOn;
  $("legend").dataset.layer = layer;
  if (!isOn) return;
  overlay.src = `data:image/png;base64,${state.attention[layer]}`;
  overlay.alt = `Attention map of the ${layer}`;
  placeOverlay();
}

// The model sees the centred square. The image may have borders in its frame.
function placeOverlay() {
  if (!state.attention) return;
  const { box, width, height } = state.attention;
  const frame = $("shown");
  const scale = Math.min(frame.clientWidth / width, frame.clientHeight / height);
  const left = (frame.clientWidth - width * scale) / 2 + box[0] * scale;
  const top = (frame.clientHeight - height * scale) / 2 + box[1] * scale;
  Object.assign($("overlay").style, {
    left: `${left}px`, top: `${top}px`,
    width: `${(box[2] - box[0]) * scale}px`, height: `${(box[3] - box[1]) * scale}px`,
  });
}

// Why a file need not be sent; empty if it may be a picture that the server takes.
function refuse(file) {
  if (HEIC.test(file.name ?? "") || /^image\/hei[cf]/.test(file.type)) {
    return "This is a HEIC picture, which the server cannot read. Save or export it as JPEG first.";
  }
  const most = state.limits?.body_bytes;
  if (most && file.size > most) {
    return `This file has ${Math.ceil(file.size / 1e6)} MB, and the server takes at most ${Math.floor(most / 1e6)} MB. Choose a smaller one.`;
  }
  return "";
}

export async function understandFile(file) {
  const refusal = refuse(file);
  if (refusal) {
    state.latest += 1;
    reset();
    notice(refusal);
    return;
  }
  const turn = (state.latest += 1);
  const hadFocus = $("drop").contains(document.activeElement);
  notice("");
  state.file = file;
  if (state.url) URL.revokeObjectURL(state.url);
  state.url = URL.createObjectURL(file);
  $("shown").src = state.url;
  $("drop").hidden = true;
  $("picture").hidden = false;
  $("see-tools").hidden = false;
  if (hadFocus) $("another").focus();
  clear();
  document.querySelector("input[name=layer][value=none]").checked = true;
  showLayer();
  $("verdict").textContent = "Understanding the picture …";
  $("result").ariaBusy = "true";
  try {
    const answer = await understand(file, state.model);
    if (turn === state.latest) showResult(answer.results[0]);
  } catch (error) {
    if (turn !== state.latest) return;
    reset();
    notice(error.message);
  } finally {
    if (turn === state.latest) $("result").ariaBusy = "false";
  }
}

function reset() {
  const hadFocus = $("see-tools").contains(document.activeElement);
  state.file = null;
  clear();
  $("drop").hidden = false;
  if (hadFocus) $("file").focus();
  $("picture").hidden = true;
  $("see-tools").hidden = true;
  $("file").value = "";
  $("verdict").textContent = "Choose a picture to see its emotions.";
}

export function startUnderstanding() {
  const take = (files) => { if (files?.length) understandFile(files[0]); };
  $("file").addEventListener("change", (event) => take(event.target.files));
  $("another").addEventListener("click", () => $("file").click());
  document.addEventListener("paste", (event) => take(event.clipboardData?.files));
  for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      $("stage").classList.toggle("is-over", type === "dragenter" || type === "dragover");
      if (type === "drop") take(event.dataTransfer.files);
    });
  }
  for (const choice of document.querySelectorAll("input[name=layer]")) choice.addEventListener("change", showLayer);
  $("shown").addEventListener("load", placeOverlay);
  new ResizeObserver(placeOverlay).observe($("shown"));
}
