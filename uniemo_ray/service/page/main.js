// Starts the parts of the page and connects them.

import { getModel } from "./api.js";
import { $, learnValences, make, notice } from "./dom.js";
import { onUnderstand, onReuse } from "./gallery.js";
import { resume, showSliders, startGenerating, useSettings } from "./generate.js";
import { restore } from "./kept.js";
import { understandFile, showEmotions, startUnderstanding, useModel } from "./understand.js";

const shown = { model: null, latest: 0 };

async function load(name) {
  const turn = (shown.latest += 1);
  const model = await getModel(name);
  if (turn !== shown.latest) return;  // another model was chosen meanwhile
  shown.model = name;
  learnValences(model);
  showEmotions(model.emotions);
  useModel(model);
  showSliders(model);
  $("model-choice").hidden = model.models.length < 2;
  $("model").replaceChildren(...model.models.map((other) => make("option", { value: other, textContent: other, selected: other === name })));
  $("about").textContent = `UniEmo on Ray, version ${model.uniemo_ray}; model ${model.fingerprint.slice(0, 12)}.`;
  $("card").textContent = model.card;
  $("card-box").hidden = !model.card;
}

async function choose(name) {
  try {
    await load(name);
  } catch (error) {
    if (shown.model) $("model").value = shown.model;
    notice(error.message);
  }
}

function startTheme() {
  const root = document.documentElement;
  const saved = localStorage.getItem("theme");
  if (saved) root.dataset.theme = saved;
  $("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  });
}

startTheme();
startUnderstanding();
startGenerating();
onReuse(async (request) => {
  if (request.model !== shown.model) await choose(request.model);
  if (request.model === shown.model) useSettings(request);
});
onUnderstand((blob) => { understandFile(blob); $("see").scrollIntoView(); });
$("model").addEventListener("change", (event) => choose(event.target.value));
await choose("default");
if (shown.model) await restore(resume);
