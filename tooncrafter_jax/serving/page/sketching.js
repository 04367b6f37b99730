/** Sketches: strokes of a pen with pressure, over a drawing that was sent, as a layer of the stage and as a picture. */

import { sendPicture } from "./api.js";
import { loadedPicture, pictureOf } from "./pictures.js";
import { framesOf, usedSketches } from "./shot.js";

/**
 * @typedef {import("./shot.js").Sketch} Sketch
 * @typedef {import("./shot.js").Stroke} Stroke
 */

const INK = "#111";
/** Pixels of the longer side of one that is sent. */
const LARGEST_SKETCH = 2048;

/**
 * Draws a stroke, or what was added to it from a point on.
 * @param {CanvasRenderingContext2D} context
 * @param {Stroke} stroke
 * @param {number} [from]
 */
export function drawStroke(context, stroke, from = 0) {
  const { width, height } = context.canvas;
  const { points } = stroke;
  context.save();
  context.globalCompositeOperation = stroke.erases ? "destination-out" : "source-over";
  context.strokeStyle = INK;
  context.fillStyle = INK;
  context.lineCap = "round";
  context.lineJoin = "round";
  /** @param {number} pressure */
  const thick = (pressure) => Math.max(0.6, stroke.size * width * (0.25 + 1.5 * pressure));
  if (points.length === 1 && from === 0) {
    const [x, y, pressure] = points[0];
    context.beginPath();
    context.arc(x * width, y * height, thick(pressure) / 2, 0, 7);
    context.fill();
  }
  for (let number = Math.max(1, from); number < points.length; number += 1) {
    const [[x0, y0, p0], [x1, y1, p1]] = [points[number - 1], points[number]];
    context.lineWidth = thick((p0 + p1) / 2);
    context.beginPath();
    context.moveTo(x0 * width, y0 * height);
    context.lineTo(x1 * width, y1 * height);
    context.stroke();
  }
  context.restore();
}

/**
 * Where a picture lies in a frame of this size, as the server fits it: whole, or with the short side of both alike, which cuts
 * wide pictures and leaves room beside narrow ones.
 * @param {{width: number, height: number}} picture
 * @param {{width: number, height: number}} frame
 * @param {boolean} [whole]
 * @returns {[number, number, number, number]} x, y, width, height
 */
export function placed(picture, frame, whole = false) {
  const fits = Math.min(frame.width / picture.width, frame.height / picture.height);
  const scale = whole ? fits : Math.min(frame.width, frame.height) / Math.min(picture.width, picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  return [(frame.width - width) / 2, (frame.height - height) / 2, width, height];
}

/** Sketches as layers: ink on nothing. */
export class SketchLayers {
  /** @param {() => void} onLoad Is told when a layer that was not complete can be asked for again. */
  constructor(onLoad) {
    this._onLoad = onLoad;
    /** @type {WeakMap<Sketch, {made: string, canvas: HTMLCanvasElement}>} */
    this._known = new WeakMap();
  }

  /**
   * @param {Sketch} sketch
   * @param {{width: number, height: number, whole: boolean}} size Of the layer, and whether the clip shows all of a picture.
   * @returns {HTMLCanvasElement}
   */
  layer(sketch, size) {
    const before = this._known.get(sketch);
    const made = JSON.stringify(size);
    if (before?.made === made) return before.canvas;
    const canvas = document.createElement("canvas");
    canvas.width = size.width;
    canvas.height = size.height;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const sent = sketch.picture ? pictureOf(sketch.picture, this._onLoad) : null;
    if (sent) drawInk(context, sent, sketch.darkLines, size.whole);
    for (const stroke of sketch.strokes) drawStroke(context, stroke);
    if (!sketch.picture || sent) this._known.set(sketch, { made, canvas });
    return canvas;
  }
}

/**
 * A drawing as ink on nothing: what is darker is more opaque; lines that are lighter than their paper are turned.
 * @param {CanvasRenderingContext2D} context
 * @param {HTMLImageElement} image
 * @param {boolean | null} darkLines null: told by which there is more of.
 * @param {boolean} whole
 */
function drawInk(context, image, darkLines, whole) {
  const { width, height } = context.canvas;
  context.fillStyle = "#fff";
  const isSeeThrough = darkLines !== false;
  if (isSeeThrough) context.fillRect(0, 0, width, height);
  const size = { width: image.naturalWidth, height: image.naturalHeight };
  context.drawImage(image, ...placed(size, context.canvas, whole));
  const pixels = context.getImageData(0, 0, width, height);
  const { data } = pixels;
  let total = 0;
  for (let at = 0; at < data.length; at += 4) total += data[at] + data[at + 1] + data[at + 2];
  const dark = darkLines ?? total / (data.length / 4) / 3 > 127;
  for (let at = 0; at < data.length; at += 4) {
    const light = (data[at] + data[at + 1] + data[at + 2]) / 3;
    data[at + 3] = dark ? 255 - light : light;
    data[at] = data[at + 1] = data[at + 2] = 17;
  }
  context.putImageData(pixels, 0, 0);
}

/** @type {WeakMap<Sketch, {made: string, sent: Promise<string>}>} */
const sentBefore = new WeakMap();

/**
 * Sends the sketches of a shot that were drawn on.
 * @param {import("./shot.js").Shot} shot
 * @param {{width: number, height: number, whole: boolean}} size Of the clip, in pixels, and whether it shows all of a key.
 * @param {SketchLayers} layers
 * @returns {Promise<Record<string, {picture: string, dark_lines: boolean | null}>>}
 */
export async function sendSketches(shot, size, layers) {
  /** @type {Record<string, {picture: string, dark_lines: boolean | null}>} */
  const found = {};
  const key = shot.keys[framesOf(shot.keys)[0]].picture;
  for (const frame of usedSketches(shot)) {
    const sketch = shot.sketches[frame];
    if (!sketch.strokes.length) {
      if (sketch.picture) found[frame] = { picture: sketch.picture, dark_lines: sketch.darkLines };
      continue;
    }
    const made = JSON.stringify([key, size]);
    let before = sentBefore.get(sketch);
    if (before?.made !== made) {
      const picture = await asPicture(sketch, size, layers, await loadedPicture(key));
      before = { made, sent: sendPicture(picture, `sketch-${frame}.png`) };
      sentBefore.set(sketch, before);
      before.sent.catch(() => sentBefore.delete(sketch));
    }
    found[frame] = { picture: await before.sent, dark_lines: true };
  }
  return found;
}

/**
 * A sketch as a picture: dark lines on white paper, which has the shape of the keys, as the server wants it. It is drawn
 * over the clip, which may show a part of a key only.
 * @param {Sketch} sketch
 * @param {{width: number, height: number, whole: boolean}} size As of `sendSketches`.
 * @param {SketchLayers} layers
 * @param {HTMLImageElement} key
 * @returns {Promise<Blob>}
 */
async function asPicture(sketch, size, layers, key) {
  if (sketch.picture) await loadedPicture(sketch.picture);
  const shape = { width: key.naturalWidth, height: key.naturalHeight };
  const finer = Math.min(1, LARGEST_SKETCH / Math.max(shape.width, shape.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(shape.width * finer);
  canvas.height = Math.round(shape.height * finer);
  const [x, y, width] = placed(shape, size, size.whole);
  const scale = canvas.width / width;
  const clip = { ...size, width: Math.round(size.width * scale), height: Math.round(size.height * scale) };
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(layers.layer(sketch, clip), -x * scale, -y * scale);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the sketch is too large"))), "image/png"),
  );
}
