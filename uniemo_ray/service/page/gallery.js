// What was made, newest first, with everything needed to make it again.

import { $, make } from "./dom.js";

const callbacks = { reuse: () => {}, look: () => {} };

export const onReuse = (callback) => { callbacks.reuse = callback; };
export const onLook = (callback) => { callbacks.look = callback; };

function title(emotions) {
  const names = Object.entries(emotions).sort((a, b) => b[1] - a[1]);
  const total = names.reduce((sum, [, weight]) => sum + weight, 0);
  return names.length === 1
    ? names[0][0]
    : names.map(([name, weight]) => `${name} ${Math.round((100 * weight) / total)} %`).join(", ");
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copying is not allowed here";
  }
  setTimeout(() => { button.textContent = "Copy settings"; }, 2000);
}

export function addToGallery(order, url, provenance) {
  const strip = make("div", { className: "strip", ariaHidden: "true" });
  for (const [name, weight] of Object.entries(order.emotion)) {
    const part = make("i");
    part.dataset.emotion = name;
    part.style.setProperty("--share", weight);
    strip.append(part);
  }
  const drawn = provenance?.attributes?.map((a) => [a.scene, a.object]).flat().filter(Boolean) ?? [];
  const name = title(order.emotion);
  const subject = order.prompt?.replace("{}", "").trim();
  const copying = make("button", { type: "button", textContent: "Copy settings" });
  copying.addEventListener("click", () => copy(copying, JSON.stringify(order)));
  const again = make("button", { type: "button", textContent: "Use again" });
  again.addEventListener("click", () => callbacks.reuse(order));
  const looking = make("button", { type: "button", textContent: "Understand" });
  looking.addEventListener("click", async () => callbacks.look(await (await fetch(url)).blob()));
  const image = make("img", { src: url, alt: `${name}${subject ? `, ${subject}` : ""}, seed ${order.seed}`, loading: "lazy" });
  const words = make(
    "div", { className: "words" },
    make("h3", { textContent: subject ? `${name}: ${subject}` : name }),
    make("p", {}, "seed ", make("code", { textContent: order.seed }), ` · ${order.steps} steps`),
    drawn.length ? make("p", { textContent: `drawn: ${[...new Set(drawn)].join(", ").replaceAll("_", " ")}` }) : null,
  );
  const actions = make(
    "div", { className: "card-actions" }, copying, again, looking,
    make("a", { href: url, download: `${Object.keys(order.emotion)[0]}-${order.seed}.png`, textContent: "Save" }),
  );
  $("gallery").prepend(make("li", {}, image, strip, words, actions));
  $("made").hidden = false;
}
