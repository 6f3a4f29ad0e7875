// What this tab has generated, so that a reload shows it again. Only ids and settings are kept here: the pictures are on
// the server until they expire.

import { getFile, getGeneration } from "./api.js";
import { addToGallery } from "./gallery.js";

const KEY = "generations";
const MOST = 20;
const FINAL = ["done", "failed", "cancelled"];

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? [];
  } catch {
    return [];
  }
}

function write(entries) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(entries.slice(-MOST)));
  } catch {
    // the browser keeps nothing for this page, so a reload starts with an empty gallery
  }
}

export const keep = (id, request) => write([...read().filter((entry) => entry.id !== id), { id, request }]);
export const forget = (id) => write(read().filter((entry) => entry.id !== id));

async function showAgain({ id, request }, images) {
  for (let i = images.length - 1; i >= 0; i -= 1) {
    if (!images[i].url) continue;
    const url = URL.createObjectURL(await getFile(`v1/generations/${id}/images/${i}`));
    addToGallery({ ...request, n: 1, seed: request.seed + i }, url, images[i].provenance, { isOlder: true });
  }
}

// Shows what the server still has of it, newest first, and calls `onRunning(id, request)` for the latest generation if it
// has not ended.
export async function restore(onRunning) {
  const [latest] = read().slice(-1);
  for (const entry of read().reverse()) {
    try {
      const generation = await getGeneration(entry.id);
      if (FINAL.includes(generation.status)) await showAgain(entry, generation.images);
      else if (entry.id === latest.id) onRunning(entry.id, entry.request);
    } catch (error) {
      if (error.status !== 404) return;  // the server cannot be asked now: a later reload may find it
      forget(entry.id);
    }
  }
}
