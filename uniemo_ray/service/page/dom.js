// Functions that build elements. Text is always inserted as text, never as HTML.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Valences of the emotions that the page knows, which colour those without a colour of their own.
const valences = {};

export function learnValences(model) {
  for (const name of model.emotions) valences[name] = model.valences?.[name] ?? "";
}

export function tint(element, name) {
  element.dataset.emotion = name;
  element.dataset.valence = valences[name] ?? "";
}

export const percent = (share) => (share > 0 && share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`);

// Whole percentages of shares that sum to 1; they sum to 100, since the largest remainders are rounded up.
export function wholePercents(shares) {
  const whole = shares.map((share) => Math.floor(100 * share));
  const order = shares.map((share, i) => [100 * share - whole[i], i]).sort((a, b) => b[0] - a[0]);
  const missing = Math.round(100 * shares.reduce((sum, share) => sum + share, 0)) - whole.reduce((sum, part) => sum + part, 0);
  for (const [, i] of order.slice(0, missing)) whole[i] += 1;
  return whole.map((part, i) => (part === 0 && shares[i] > 0 ? "<1 %" : `${part} %`));
}

export function notice(text) {
  const place = $("notice");
  place.textContent = text;
  place.hidden = !text;
  if (text) place.scrollIntoView({ block: "center" });
}

export function toBlob(base64, type) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type });
}
