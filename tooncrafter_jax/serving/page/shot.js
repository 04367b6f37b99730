/**
 * A shot as it is edited: plain values that are never changed, but replaced. Frames are counted as on the command line.
 *
 * @typedef {{picture: string, name: string}} Key A key drawing by its checksum, and what its file was called.
 * @typedef {{points: [number, number, number][], size: number, erases: boolean}} Stroke Points are (x, y, pressure), x and
 *   the width of the line as shares of the clip's width, y of its height, pressure from 0 to 1.
 * @typedef {{picture: string | null, darkLines: boolean | null, strokes: Stroke[]}} Sketch A drawing that was sent, and
 *   what was drawn over it.
 * @typedef {{name: string, model: string, keys: Record<string, Key>, sketches: Record<string, Sketch>,
 *   prompts: Record<string, string>, timing: Record<string, string>, exposure: Record<string, string>, takes: number,
 *   settings: Record<string, any>, options: Record<string, any>}} Shot `timing` and `exposure` are of the gap that begins
 *   at a frame; `settings` are the request's own fields such as seed and loop; `options` say how to sample.
 */

/** Frames from one key to the next where nothing says otherwise: a clip has 16 frames. */
export const SPACING = 15;
/** Takes that are drawn at a time. */
export const MOST_TAKES = 4;
const LAST_FRAME = 9999;
/** Fields of a request that are `settings`, as they are shown. */
export const SETTINGS = ["seed", "fps", "loop", "through_keys", "exact_keys", "unevenness", "negative_prompt"];

/** @returns {Shot} */
export const emptyShot = () => ({
  name: "",
  model: "",
  keys: {},
  sketches: {},
  prompts: {},
  timing: {},
  exposure: {},
  takes: 1,
  settings: {},
  options: {},
});

/**
 * Frames of a table by frame, ascending.
 * @param {Record<string, any>} table
 * @returns {number[]}
 */
export const framesOf = (table) => Object.keys(table).map(Number).sort((a, b) => a - b);

/**
 * The frames that are shown, both ends included; null without two keys.
 * @param {Shot} shot
 * @returns {{first: number, last: number} | null}
 */
export function span(shot) {
  const frames = framesOf(shot.keys);
  if (frames.length < 2) return null;
  return { first: frames[0], last: frames[frames.length - 1] - (shot.settings.loop ? 1 : 0) };
}

/**
 * What is between two keys that follow each other.
 * @param {Shot} shot
 * @returns {{first: number, last: number, timing: string, exposure: string}[]}
 */
export function gaps(shot) {
  const frames = framesOf(shot.keys);
  return frames.slice(0, -1).map((first, number) => ({
    first,
    last: frames[number + 1],
    timing: shot.timing[first] ?? "linear",
    exposure: shot.exposure[first] ?? "1",
  }));
}

/**
 * The nearest frame from this one on that has no key.
 * @param {Shot} shot
 * @param {number} frame
 */
function freeFrame(shot, frame) {
  let found = Math.max(0, Math.min(frame, LAST_FRAME));
  while (shot.keys[found]) found += 1;
  return found;
}

/**
 * A shot with a key more; one that is on this frame already is replaced.
 * @param {Shot} shot
 * @param {number} frame
 * @param {Key} key
 * @returns {Shot}
 */
export function withKey(shot, frame, key) {
  const before = framesOf(shot.keys).filter((one) => one < frame).pop();
  const [timing, exposure] = [{ ...shot.timing }, { ...shot.exposure }];
  if (before !== undefined && !shot.keys[frame]) {
    // both halves of a gap go on as the whole
    if (timing[before]) timing[frame] = timing[before];
    if (exposure[before]) exposure[frame] = exposure[before];
  }
  return { ...shot, timing, exposure, keys: { ...shot.keys, [frame]: key } };
}

/**
 * A shot with pictures as keys. If their names are numbered as frames are, they stand there, counted from `frame`; else one
 * clip's length from each other. Names that count 1, 2, 3 say an order, not frames.
 * @param {Shot} shot
 * @param {(Key & {number: number | null})[]} pictures
 * @param {number | null} frame Of the first of them; null: after the last key.
 * @returns {{shot: Shot, frames: number[]}}
 */
export function withPictures(shot, pictures, frame) {
  const taken = framesOf(shot.keys);
  let next = frame ?? (taken.length ? taken[taken.length - 1] + SPACING : 0);
  const numbers = pictures.map((one) => one.number).sort((a, b) => Number(a) - Number(b));
  const steps = numbers.slice(1).map((number, index) => Number(number) - Number(numbers[index]));
  const numbered = numbers.every((one) => one !== null) && steps.length > 0 && steps.every((step) => step > 1);
  const start = next;
  const frames = [];
  for (const { number, ...key } of pictures) {
    const wanted = numbered ? start + Number(number) - Number(numbers[0]) : next;
    const found = pictures.length === 1 && frame !== null ? frame : freeFrame(shot, wanted);
    shot = withKey(shot, found, key);
    frames.push(found);
    next = found + SPACING;
  }
  return { shot, frames };
}

/**
 * A shot with pictures as sketches: as far from `frame` as the numbers in their names say, if each has one of its own; else
 * one after the other.
 * @param {Shot} shot
 * @param {{picture: string, number: number | null}[]} pictures
 * @param {number} frame Of the first of them.
 * @returns {{shot: Shot, frames: number[]}}
 */
export function withSketches(shot, pictures, frame) {
  const numbers = pictures.map((one) => one.number);
  const least = Math.min(...numbers.map(Number));
  const isNumbered = numbers.every((one) => one !== null) && new Set(numbers).size === numbers.length;
  const wanted = pictures.map(({ number }, index) => frame + (isNumbered ? Number(number) - least : index));
  if (Math.max(...wanted) > LAST_FRAME) throw new Error(`the sketches would go beyond frame ${LAST_FRAME}`);
  const added = pictures.map(({ picture }, index) => [wanted[index], { picture, darkLines: null, strokes: [] }]);
  const frames = wanted.sort((a, b) => a - b);
  return { shot: { ...shot, sketches: { ...shot.sketches, ...Object.fromEntries(added) } }, frames };
}

/**
 * A table without an entry.
 * @template T
 * @param {Record<string, T>} table
 * @param {number} frame
 * @returns {Record<string, T>}
 */
function without(table, frame) {
  const { [frame]: _, ...others } = table;
  return others;
}

/**
 * A shot without something.
 * @param {Shot} shot
 * @param {"keys" | "sketches" | "prompts"} kind
 * @param {number} frame
 * @returns {Shot}
 */
export function withoutItem(shot, kind, frame) {
  const changed = { ...shot, [kind]: without(/** @type {Record<string, any>} */ (shot[kind]), frame) };
  if (kind !== "keys") return changed;
  return { ...changed, timing: without(shot.timing, frame), exposure: without(shot.exposure, frame) };
}

/**
 * A shot in which something stands elsewhere; the same where that place is taken.
 * @param {Shot} shot
 * @param {"keys" | "sketches" | "prompts"} kind
 * @param {number} from
 * @param {number} to
 * @returns {Shot}
 */
export function moved(shot, kind, from, to) {
  /** @param {Record<string, any>} table */
  const shifted = (table) => (table[from] === undefined ? table : { ...without(table, from), [to]: table[from] });
  const table = /** @type {Record<string, any>} */ (shot[kind]);
  if (to < 0 || to > LAST_FRAME || to === from || table[to] !== undefined || table[from] === undefined) return shot;
  const changed = { ...shot, [kind]: shifted(table) };
  if (kind !== "keys") return changed;
  return { ...changed, timing: shifted(without(shot.timing, to)), exposure: shifted(without(shot.exposure, to)) };
}

/**
 * Sketches that guide a frame: those between the keys, as keys need none.
 * @param {Shot} shot
 * @returns {number[]}
 */
export function usedSketches(shot) {
  const shown = span(shot);
  if (!shown) return [];
  return framesOf(shot.sketches).filter((one) => one > shown.first && one <= shown.last && !shot.keys[one]);
}

/**
 * What is sent to the server.
 * @param {Shot} shot
 * @param {Record<string, {picture: string, dark_lines: boolean | null}>} sketches frame -> what it is there.
 * @param {number} seed
 * @returns {Record<string, any>}
 */
export function asRequest(shot, sketches, seed) {
  const between = gaps(shot);
  /** @type {Record<string, any>} */
  const request = { keys: {}, ...shot.settings, seed };
  for (const frame of framesOf(shot.keys)) request.keys[frame] = shot.keys[frame].picture;
  request.timing = Object.fromEntries(between.map((gap) => [gap.first, gap.timing]));
  request.exposure = Object.fromEntries(
    between.map((gap) => [gap.first, /^\d+$/.test(gap.exposure) ? Number(gap.exposure) : gap.exposure]),
  );
  const shown = span(shot);
  const prompts = framesOf(shot.prompts).filter((one) => shown && one <= shown.last);
  const before = prompts.filter((one) => shown && one <= shown.first);
  const [start, later] = [before[before.length - 1], prompts.filter((one) => shown && one > shown.first)];
  if (start !== undefined && !later.length) request.prompt = shot.prompts[start];
  else if (later.length && shown) {
    const first = start === undefined ? {} : { [shown.first]: shot.prompts[start] };
    request.prompt = { ...first, ...Object.fromEntries(later.map((one) => [one, shot.prompts[one]])) };
  }
  if (Object.keys(sketches).length) request.sketches = sketches;
  if (Object.keys(shot.options).length) request.options = shot.options;
  if (shot.model) request.model = shot.model;
  if (shot.name) request.name = shot.name;
  return request;
}

/**
 * A timing or an exposure of a request, by gap.
 * @param {any} given
 * @param {number[]} frames
 * @param {string} usual
 * @returns {Record<string, string>}
 */
function byGap(given, frames, usual) {
  const isTable = given !== null && typeof given === "object" && !Array.isArray(given);
  const entries = isTable ? Object.entries(given) : frames.slice(0, -1).map((one) => [one, given ?? usual]);
  return Object.fromEntries(entries.map(([frame, value]) => [frame, Array.isArray(value) ? value.join(",") : `${value}`]));
}

/**
 * What a key is called: one that was sent before is named by its checksum, which is no name.
 * @param {string} picture As a request calls it.
 */
const nameOf = (picture) => (/^[0-9a-f]{64}$/.test(picture) ? "" : picture.slice(0, 40));

/**
 * The shot of a job, to be changed again.
 * @param {import("./api.js").Job} job
 * @returns {Shot}
 */
export function ofJob(job) {
  const { request, pictures } = job;
  /** @param {string} name */
  const sha = (name) => pictures[name] ?? name;
  const isPair = request.keys === undefined;
  const last = (request.options?.frames ?? SPACING + 1) - 1;
  /** @type {Record<string, string>} */
  const keys = isPair ? { 0: request.first, [last]: request.last } : request.keys;
  const frames = framesOf(keys);
  /** @type {Shot} */
  const shot = { ...emptyShot(), name: request.name ?? "", model: request.model ?? "", options: request.options ?? {} };
  shot.keys = Object.fromEntries(frames.map((one) => [one, { picture: sha(keys[one]), name: nameOf(keys[one]) }]));
  for (const [frame, one] of Object.entries(request.sketches ?? {})) {
    const [name, dark] = typeof one === "string" ? [one, null] : [one.picture, one.dark_lines ?? null];
    shot.sketches[frame] = { picture: sha(name), darkLines: dark, strokes: [] };
  }
  const { prompt } = request;
  if (typeof prompt === "string") shot.prompts = prompt ? { 0: prompt } : {};
  else for (const [place, text] of Object.entries(prompt ?? {})) {
    const [from, to] = place.split("-").map(Number);
    shot.prompts[from] = text;
    if (to !== undefined && shot.prompts[to + 1] === undefined && to < frames[frames.length - 1]) shot.prompts[to + 1] = "";
  }
  shot.timing = byGap(request.timing, frames, "linear");
  shot.exposure = byGap(request.exposure, frames, "1");
  for (const name of SETTINGS) if (request[name] !== undefined) shot.settings[name] = request[name];
  return shot;
}
