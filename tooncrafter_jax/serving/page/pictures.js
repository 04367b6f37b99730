/** Pictures: from files that are chosen, dropped or pasted to the server, and from there to the page. */

import { finalRefusal, pictureAddress, sendPicture } from "./api.js";
import { complain, say } from "./dom.js";

/** @typedef {{picture: string, name: string, number: number | null}} Taken A picture that the server has. */

const ENDINGS = /\.(bmp|gif|jpe?g|png|tiff?|webp)$/i;
const MOST_FILES = 500;
/** Milliseconds until something that did not come is asked for again, the first time and at most. */
export const [RETRY, LONGEST] = [2000, 60_000];
let hasFailed = false;

/** @type {Map<string, HTMLImageElement>} */
const known = new Map();

/**
 * Lets a picture that did not come be asked for again: after two seconds, and ever later, unless the server refuses it.
 * @param {HTMLImageElement} image
 * @param {() => boolean} [isWanted] Whether it is still to be seen.
 * @returns {HTMLImageElement}
 */
export function retried(image, isWanted = () => true) {
  let tries = 0;
  image.addEventListener("error", () => {
    if (!hasFailed) complain("A picture did not come from the server; it is asked for again.");
    hasFailed = true;
    const again = async () => {
      const address = image.getAttribute("src") ?? "";
      if (!isWanted()) return;
      const refusal = await finalRefusal(address);
      if (refusal) complain(refusal);
      else image.setAttribute("src", address);
    };
    setTimeout(again, Math.min(LONGEST, RETRY * 2 ** tries));
    tries += 1;
  });
  image.addEventListener("load", () => {
    hasFailed = false;
  });
  return image;
}

/**
 * A picture of the server's; null until it is there, which `onLoad` tells.
 * @param {string} sha256
 * @param {() => void} onLoad
 * @returns {HTMLImageElement | null}
 */
export function pictureOf(sha256, onLoad) {
  let image = known.get(sha256);
  if (!image) {
    image = new Image();
    image.addEventListener("load", onLoad);
    retried(image);
    image.src = pictureAddress(sha256);
    known.set(sha256, image);
  }
  return image.complete && image.naturalWidth > 0 ? image : null;
}

/**
 * A picture of the server's, once it is there.
 * @param {string} sha256
 * @returns {Promise<HTMLImageElement>}
 */
export async function loadedPicture(sha256) {
  const found = pictureOf(sha256, () => {}) ?? /** @type {HTMLImageElement} */ (known.get(sha256));
  try {
    await found.decode();
  } catch {
    throw new Error("a picture did not come from the server: try again");
  }
  return found;
}

/**
 * The last number in a file's name, which is its frame.
 * @param {string} name
 * @returns {number | null}
 */
export function numberOf(name) {
  const found = name.replace(/\.[^.]*$/, "").match(/\d{1,6}/g);
  return found ? Number(found[found.length - 1]) : null;
}

/** @param {number} count Of pictures. */
export const saySending = (count) => say(count === 1 ? "Sending the picture." : `Sending ${count} pictures.`);

/**
 * Sends files, in the order of their names.
 * @param {File[]} files
 * @returns {Promise<Taken[]>}
 */
export async function take(files) {
  const pictures = files.filter((file) => file.type.startsWith("image/") || ENDINGS.test(file.name));
  if (!pictures.length) throw new Error("there is no picture among these files: bring PNG, JPEG, WebP, TIFF, BMP or GIF");
  if (pictures.length > MOST_FILES) throw new Error(`these are more than ${MOST_FILES} pictures: bring fewer at a time`);
  saySending(pictures.length);
  pictures.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const taken = [];
  for (const file of pictures) {
    const name = file.name || "pasted";
    taken.push({ picture: await sendPicture(file, name), name, number: numberOf(name) });
  }
  return taken;
}

/** @type {WeakMap<File, string>} */
const folders = new WeakMap();

/**
 * The folder that a dropped file lay in; nothing without one.
 * @param {File} file
 */
export const folderOf = (file) => folders.get(file) ?? "";

/**
 * The files that were dropped, those in folders too. Begins at once: what is dropped is only there for a moment.
 * @param {DataTransfer} dropped
 * @returns {Promise<File[]>}
 */
export async function filesOf(dropped) {
  const items = [...dropped.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  for (const entry of entries) {
    if (entry instanceof File) found.push(entry);
    else if (entry) found.push(...(await inEntry(entry)));
  }
  return found;
}

/**
 * @param {any} entry
 * @returns {Promise<File[]>}
 */
async function inEntry(entry) {
  if (entry.isFile) {
    /** @type {File} */
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    folders.set(file, entry.fullPath.split("/").at(-2) ?? "");
    return [file];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length || found.length > MOST_FILES) return found;
    for (const one of some) found.push(...(await inEntry(one)));
  }
}
