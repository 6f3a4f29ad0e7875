// The generated pictures, newest first, with the settings that give them again.

import { $, make, tint } from "./dom.js";

const callbacks = { reuse: () => {}, understand: () => {} };

export const onReuse = (callback) => { callbacks.reuse = callback; };
export const onUnderstand = (callback) => { callbacks.understand = callback; };

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
    button.textContent = "The browser does not allow copying";
  }
  setTimeout(() => { button.textContent = "Copy settings"; }, 2000);
}

export function addToGallery(request, url, provenance, { isOlder = false } = {}) {
  const strip = make("div", { className: "strip", ariaHidden: "true" });
  for (const [name, weight] of Object.entries(request.emotion)) {
    const part = make("i");
    tint(part, name);
    part.style.setProperty("--share", weight);
    strip.append(part);
  }
  const wanted = provenance?.attributes?.map((a) => [a.scene, a.object]).flat().filter(Boolean) ?? [];
  const name = title(request.emotion);
  const subject = request.prompt?.replace("{}", "").trim();
  const copying = make("button", { type: "button", textContent: "Copy settings" });
  copying.addEventListener("click", () => copy(copying, JSON.stringify(request)));
  const again = make("button", { type: "button", textContent: "Use again" });
  again.addEventListener("click", () => callbacks.reuse(request));
  const understanding = make("button", { type: "button", textContent: "Understand" });
  understanding.addEventListener("click", async () => callbacks.understand(await (await fetch(url)).blob()));
  const image = make("img", { src: url, alt: `${name}${subject ? `, ${subject}` : ""}, seed ${request.seed}`, loading: "lazy" });
  const words = make(
    "div", { className: "words" },
    make("h3", { textContent: subject ? `${name}: ${subject}` : name }),
    make("p", {}, "seed ", make("code", { textContent: request.seed }), ` · ${request.steps} steps`),
    wanted.length ? make("p", { textContent: `asked for: ${[...new Set(wanted)].join(", ").replaceAll("_", " ")}` }) : null,
  );
  const actions = make(
    "div", { className: "card-actions" }, copying, again, understanding,
    make("a", { href: url, download: `${Object.keys(request.emotion)[0]}-${request.seed}.png`, textContent: "Save" }),
  );
  const card = make("li", {}, image, strip, words, actions);
  if (isOlder) $("gallery").append(card);
  else $("gallery").prepend(card);
  $("made").hidden = false;
}
