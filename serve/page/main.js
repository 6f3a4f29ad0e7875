// Puts the page together.

import { getModel } from "./api.js";
import { $, make, notice } from "./dom.js";
import { onLook, onReuse } from "./gallery.js";
import { showSliders, startPainting, useOrder } from "./paint.js";
import { look, showEmotions, startSeeing, useModel } from "./see.js";

async function load(name) {
  const model = await getModel(name);
  useModel(name);
  showEmotions(model.emotions);
  showSliders(model);
  $("model-choice").hidden = model.models.length < 2;
  $("model").replaceChildren(...model.models.map((other) => make("option", { value: other, textContent: other, selected: other === name })));
  $("about").textContent = `UniEmo on Ray, version ${model.uniemo_ray}; model ${model.fingerprint.slice(0, 12)}.`;
  $("card").textContent = model.card;
  $("card-box").hidden = !model.card;
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
startSeeing();
startPainting();
onReuse(useOrder);
onLook((blob) => { look(blob); $("see").scrollIntoView(); });
$("model").addEventListener("change", (event) => load(event.target.value).catch((error) => notice(error.message)));
load("default").catch((error) => notice(error.message));
