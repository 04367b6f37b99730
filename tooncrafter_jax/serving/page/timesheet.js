/** Time sheets: their drawings, which come with them, become keys on the frames where the sheet shows them first. */

import { folderOf } from "./pictures.js";

/** @typedef {{frame: number, drawing: string | null}} Shown */

/** @param {File} file */
export const isSheet = (file) => /\.xdts$/i.test(file.name);

/**
 * Whether a file is a sheet whose drawings have places that the page would lose.
 * @param {File} file
 */
export const isOtherSheet = (file) => /\.(oca|csv)$/i.test(file.name);

/**
 * The drawing that a file is of: "1" of "A_0001.png" in the layer "A".
 * @param {string} name
 * @param {string} layer
 * @returns {string}
 */
export function drawingOf(name, layer) {
  const stem = name.replace(/\.[^.]*$/, "");
  const isOfLayer = stem.toLowerCase().startsWith(layer.toLowerCase()) && stem.length > layer.length;
  const rest = isOfLayer ? stem.slice(layer.length).replace(/^[._ -]/, "") : stem;
  return rest.replace(/^0+(?=\d)/, "");
}

/**
 * The files of a layer by their drawings: one in a folder of its name counts first, one in another layer's folder not at all.
 * @param {string} layer
 * @param {File[]} files
 * @param {Set<string>} names Of all layers, in lower case.
 * @returns {Map<string, File>}
 */
function drawingsOf(layer, files, names) {
  const isOwn = (/** @type {File} */ file) => folderOf(file).toLowerCase() === layer.toLowerCase();
  const isLoose = (/** @type {File} */ file) => !names.has(folderOf(file).toLowerCase());
  const candidates = [...files.filter(isLoose), ...files.filter(isOwn)]; // of two the last one counts
  return new Map(candidates.map((file) => [drawingOf(file.name, layer), file]));
}

/**
 * The keys that a sheet asks for: of the layer most of whose drawings came with it.
 * @param {{name: string, drawings: Shown[]}[]} layers
 * @param {File[]} files
 * @returns {{layer: string, keys: {frame: number, file: File}[], others: string[]}} `others` are layers that are left out.
 */
export function keysOf(layers, files) {
  const names = new Set(layers.map(({ name }) => name.toLowerCase()));
  const found = layers.map(({ name, drawings }) => {
    const pictures = drawingsOf(name, files, names);
    const keys = [];
    for (const { frame, drawing } of drawings) {
      const file = drawing === null ? undefined : pictures.get(drawing);
      if (file) keys.push({ frame, file });
    }
    return { layer: name, keys };
  });
  const best = found.reduce((one, other) => (other.keys.length > one.keys.length ? other : one), found[0]);
  if (!best?.keys.length) throw new Error("no drawing of the time sheet came with it: drop the sheet and its drawings together");
  return { ...best, others: found.filter((one) => one !== best).map((one) => one.layer) };
}
