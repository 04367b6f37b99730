/** Files that come to the page: chosen, dropped or pasted pictures and time sheets. */

import { readSheet, sendPicture } from "./api.js";
import { byId, calm, say, told } from "./dom.js";
import { filesOf, saySending, take } from "./pictures.js";
import { framesOf, withKey, withPictures, withSketches } from "./shot.js";
import { isOtherSheet, isSheet, keysOf } from "./timesheet.js";

/** @typedef {import("./store.js").Store} Store */

/**
 * Brings files as keys, or as sketches where they are dropped on that row.
 * @param {Store} store
 * @param {File[]} files
 * @param {number | null} frame
 * @param {boolean} [asSketch]
 */
async function bring(store, files, frame, asSketch = false) {
  if (!files.length) return;
  calm();
  const sheet = files.find(isSheet);
  if (sheet) return bringSheet(store, sheet, files);
  const other = files.find(isOtherSheet);
  if (other) throw new Error(`the page reads XDTS time sheets: "${other.name}" is read by tooncrafter sample --timesheet`);
  const taken = await store.forThisShot(take(files));
  if (asSketch && frame !== null) {
    const { shot, frames } = withSketches(store.shot, taken, frame);
    store.change(shot);
    store.look({ selected: { kind: "sketches", frame }, frame, mode: "edit" });
    say(frames.length === 1 ? `A sketch is on frame ${frame}.` : `Sketches are on frames ${frames.join(", ")}.`);
    return;
  }
  const placed = withPictures(store.shot, taken, frame);
  store.change(placed.shot);
  store.look({ frame: placed.frames[0], mode: "edit" });
  const where = placed.frames.join(", ");
  say(placed.frames.length === 1 ? `A key is on frame ${where}.` : `Keys are on frames ${where}.`);
}

/**
 * Brings the keys of a time sheet, each on its frames.
 * @param {Store} store
 * @param {File} sheet
 * @param {File[]} files
 */
async function bringSheet(store, sheet, files) {
  const { layers, notes } = await store.forThisShot(readSheet(sheet));
  const { layer, keys, others } = keysOf(layers, files);
  const drawings = new Set(keys.map(({ file }) => file));
  saySending(drawings.size);
  /** @type {Map<File, string>} */
  const sent = new Map();
  for (const file of drawings) sent.set(file, await store.forThisShot(sendPicture(file, file.name)));
  const placed = keys.map(({ frame, file }) => ({ frame, picture: sent.get(file) ?? "", name: file.name }));
  store.change(placed.reduce((shot, { frame, ...key }) => withKey(shot, frame, key), store.shot));
  store.look({ frame: keys[0].frame, mode: "edit" });
  const left = others.length ? ` Left out: ${others.join(", ")}.` : "";
  say(`The layer ${layer} brings ${keys.length} keys.${left} ${notes.join(". ")}`);
}

/**
 * Lets files be chosen, dropped and pasted.
 * @param {Store} store
 * @param {import("./timeline.js").Timeline} timeline
 */
export function takeFiles(store, timeline) {
  for (const [id, buttons] of /** @type {[string, string[]][]} */ ([
    ["files", ["choose", "choose-empty"]],
    ["sketch-files", ["add-sketches"]],
  ])) {
    const input = byId(id);
    const isSketch = id === "sketch-files";
    const chosen = told(async () => {
      const files = [...input.files];
      input.value = "";
      await bring(store, files, isSketch ? store.view.frame : null, isSketch);
    });
    input.addEventListener("change", chosen);
    for (const button of buttons) byId(button).addEventListener("click", () => input.click());
  }
  let inside = 0;
  const isFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  const show = (/** @type {number} */ change) => {
    inside = Math.max(0, inside + change);
    document.body.classList.toggle("dropping", inside > 0);
  };
  document.addEventListener("dragenter", (event) => isFiles(event) && show(1));
  document.addEventListener("dragleave", (event) => isFiles(event) && show(-1));
  document.addEventListener("dragover", (event) => isFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!isFiles(event) || !event.dataTransfer) return;
    event.preventDefault();
    show(-inside);
    const target = /** @type {Element} */ (event.target);
    const frame = target.closest("#track") ? timeline.frameAt(event.clientX) : null;
    const asSketch = target.closest("#row-sketches") !== null;
    const files = filesOf(event.dataTransfer);
    told(async () => bring(store, await files, frame, asSketch))();
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    const { frame } = store.view;
    const isFree = framesOf(store.shot.keys).length > 0 && !store.shot.keys[frame];
    told(bring)(store, files, isFree ? frame : null);
  });
}
