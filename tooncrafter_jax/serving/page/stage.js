/** The stage: the frame that is looked at, with the keys around it shining through, and a pen to sketch with. */

import { previewAddress } from "./api.js";
import { byId, say } from "./dom.js";
import { pictureOf } from "./pictures.js";
import { framesOf, span } from "./shot.js";
import { drawStroke, placed } from "./sketching.js";

/** @typedef {import("./shot.js").Stroke} Stroke */

const TINTS = { before: "#ff6a4d", after: "#2f9e6e" };
const ONION_OPACITY = 0.55;
const TRACED_OPACITY = 0.5;
const [LEAST_ZOOM, MOST_ZOOM] = [0.25, 16];
const MARGIN = 12;
/** Pixels from one point of a stroke to the next. */
const LEAST_STEP = 0.5;
/** Onion skins that are kept, and pixels of the longer side of one. */
const [MOST_SKINS, MOST_SKIN] = [8, 2048];

/** Shows frames, and takes strokes. */
export class Stage {
  /**
   * @param {import("./store.js").Store} store
   * @param {import("./player.js").Frames} frames
   * @param {import("./sketching.js").SketchLayers} layers
   */
  constructor(store, frames, layers) {
    this._store = store;
    this._frames = frames;
    this._layers = layers;
    this._area = byId("stage");
    /** @type {HTMLCanvasElement} */
    this._canvas = byId("canvas");
    this._preview = byId("preview");
    this._empty = byId("empty");
    this._zoom = 1;
    this._shift = { x: 0, y: 0 };
    /** @type {Stroke | null} */
    this._stroke = null;
    /** @type {{canvas: HTMLCanvasElement, stroke: Stroke | null, layer: HTMLCanvasElement | null, points: number}} */
    this._wet = { canvas: document.createElement("canvas"), stroke: null, layer: null, points: 0 };
    /** @type {Map<number, PointerEvent>} */
    this._pointers = new Map();
    /** @type {Map<string, HTMLCanvasElement>} */
    this._skins = new Map();
    this._pans = false;
    /** The frame and the shot that the stroke began on. */
    this._strokeOf = { frame: 0, opened: 0 };
    this._listen();
    new ResizeObserver(() => this.draw()).observe(this._area);
  }

  /**
   * @param {number} factor
   * @param {{x: number, y: number}} [at] What stays where it is, counted from the middle of the stage.
   */
  zoomBy(factor, at = { x: 0, y: 0 }) {
    const zoom = Math.max(LEAST_ZOOM, Math.min(MOST_ZOOM, this._zoom * factor));
    const by = zoom / this._zoom;
    this._shift = { x: at.x - (at.x - this._shift.x) * by, y: at.y - (at.y - this._shift.y) * by };
    this._zoom = zoom;
    this.draw();
  }

  /** Shows the whole frame. */
  fit() {
    this._zoom = 1;
    this._shift = { x: 0, y: 0 };
    this.draw();
  }

  /** Where the frame lies on the stage, in CSS pixels. */
  get _paper() {
    const { clientWidth, clientHeight } = this._area;
    const room = { width: clientWidth - 2 * MARGIN, height: clientHeight - 2 * MARGIN };
    const [, , width, height] = placed(this._store.size, room, true);
    const [w, h] = [width * this._zoom, height * this._zoom];
    return { x: (clientWidth - w) / 2 + this._shift.x, y: (clientHeight - h) / 2 + this._shift.y, width: w, height: h };
  }

  /** Draws what is to be seen now. */
  draw() {
    const { shot, view, take } = this._store;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this._area.clientWidth, this._area.clientHeight];
    if (!width || !height) return;
    if (this._canvas.width !== Math.round(width * ratio) || this._canvas.height !== Math.round(height * ratio)) {
      this._canvas.width = Math.round(width * ratio);
      this._canvas.height = Math.round(height * ratio);
    }
    const context = /** @type {CanvasRenderingContext2D} */ (this._canvas.getContext("2d"));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const paper = this._paper;
    const isEmpty = !framesOf(shot.keys).length && !take;
    this._empty.hidden = !isEmpty;
    context.fillStyle = "#fff";
    context.shadowColor = "rgb(0 0 0 / 0.25)";
    context.shadowBlur = 8;
    if (!isEmpty) context.fillRect(paper.x, paper.y, paper.width, paper.height);
    context.shadowBlur = 0;
    context.save();
    context.beginPath();
    context.rect(paper.x, paper.y, paper.width, paper.height);
    context.clip();
    context.translate(paper.x, paper.y);
    const showsClip = view.mode === "clip" && take !== null;
    const isPreview = showsClip && take.state !== "done" && take.previews > 0;
    if (showsClip && take.state === "done") this._drawTake(context, paper);
    else if (!isPreview) this._drawSketching(context, paper);
    context.restore();
    this._showPreview(isPreview ? previewAddress(/** @type {any} */ (take)) : "", paper);
    this._canvas.setAttribute("aria-label", this._said());
    this._area.dataset.tool = this._canDraw ? view.tool : "hand";
    const scrolls = this._area.dataset.tool === "hand" && this._zoom === 1;
    this._canvas.style.touchAction = scrolls ? "pan-y" : "none"; // a finger moves the page where it does not draw
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {{width: number, height: number}} paper
   */
  _drawTake(context, paper) {
    const { take, view } = this._store;
    const frame = take && this._frames.frame(take, view.frame);
    if (frame) context.drawImage(frame, 0, 0, paper.width, paper.height);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {{width: number, height: number}} paper
   */
  _drawSketching(context, paper) {
    const { shot, view } = this._store;
    const keys = framesOf(shot.keys);
    if (shot.keys[view.frame]) this._drawKey(context, paper, view.frame, null);
    else if (view.traced && this._store.take?.state === "done") {
      context.globalAlpha = TRACED_OPACITY;
      this._drawTake(context, paper);
      context.globalAlpha = 1;
    } else if (view.onion) {
      context.globalCompositeOperation = "multiply";
      context.globalAlpha = ONION_OPACITY;
      const [before, after] = [keys.filter((one) => one < view.frame).pop(), keys.find((one) => one > view.frame)];
      if (before !== undefined) this._drawKey(context, paper, before, TINTS.before);
      if (after !== undefined) this._drawKey(context, paper, after, TINTS.after);
      context.globalAlpha = 1;
      context.globalCompositeOperation = "source-over";
    }
    const sketch = shot.sketches[view.frame];
    const stroke = this._strokeOf.frame === view.frame ? this._stroke : null;
    const layer = sketch ? this._layers.layer(sketch, this._layerSize) : null;
    const shown = stroke ? this._withStroke(layer, stroke) : layer;
    if (shown) context.drawImage(shown, 0, 0, paper.width, paper.height);
  }

  /**
   * A layer with the stroke that is being drawn, on one canvas for all strokes: only what is new of it is drawn.
   * @param {HTMLCanvasElement | null} layer
   * @param {Stroke} stroke
   * @returns {HTMLCanvasElement}
   */
  _withStroke(layer, stroke) {
    const { canvas, ...before } = this._wet;
    const { width, height } = this._layerSize;
    const ink = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const isOn = before.stroke === stroke && before.layer === layer && canvas.width === width && canvas.height === height;
    if (!isOn) {
      [canvas.width, canvas.height] = [width, height]; // which clears it
      if (layer) ink.drawImage(layer, 0, 0);
    }
    drawStroke(ink, stroke, isOn ? before.points : 0);
    this._wet = { canvas, stroke, layer, points: stroke.points.length };
    return canvas;
  }

  /** Sketches are shown finer than they are sent: on a large screen their pixels would be seen. */
  get _layerSize() {
    const { width, height, whole } = this._store.size;
    const finer = Math.max(1, Math.min(4, Math.ceil(1024 / width)));
    return { width: width * finer, height: height * finer, whole };
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {{width: number, height: number}} paper
   * @param {number} frame
   * @param {string | null} tint Of its lines, where it shines through.
   */
  _drawKey(context, paper, frame, tint) {
    const { shot } = this._store;
    const image = pictureOf(shot.keys[frame].picture, () => this.draw());
    if (!image) return;
    const size = { width: image.naturalWidth, height: image.naturalHeight };
    const { whole } = this._store.size;
    const place = placed(size, paper, whole);
    if (tint === null) {
      context.fillStyle = whole ? "#fff" : "#000"; // what the server puts beside
      context.fillRect(0, 0, paper.width, paper.height);
      context.drawImage(image, ...place);
      return;
    }
    context.drawImage(this._tinted(image, tint), ...place);
  }

  /**
   * A picture whose dark parts have a colour: made once, as it is drawn for every point of a stroke.
   * @param {HTMLImageElement} image
   * @param {string} tint
   * @returns {HTMLCanvasElement}
   */
  _tinted(image, tint) {
    const name = `${tint} ${image.src}`;
    const known = this._skins.get(name);
    if (known) return known;
    const layer = document.createElement("canvas");
    const scale = Math.min(1, MOST_SKIN / Math.max(image.naturalWidth, image.naturalHeight));
    layer.width = Math.max(1, Math.round(image.naturalWidth * scale));
    layer.height = Math.max(1, Math.round(image.naturalHeight * scale));
    const context = /** @type {CanvasRenderingContext2D} */ (layer.getContext("2d"));
    context.fillStyle = "#fff";
    context.fillRect(0, 0, layer.width, layer.height);
    context.drawImage(image, 0, 0, layer.width, layer.height);
    context.globalCompositeOperation = "screen";
    context.fillStyle = tint;
    context.fillRect(0, 0, layer.width, layer.height);
    if (this._skins.size >= MOST_SKINS) this._skins.clear();
    this._skins.set(name, layer);
    return layer;
  }

  /**
   * @param {string} address Of a moving picture, which a canvas would not move; none without.
   * @param {{x: number, y: number, width: number, height: number}} paper
   */
  _showPreview(address, paper) {
    this._preview.hidden = !address;
    if (!address) return;
    if (this._preview.getAttribute("src") !== address) this._preview.src = address;
    for (const [name, value] of Object.entries({ left: paper.x, top: paper.y, width: paper.width, height: paper.height })) {
      this._preview.style.setProperty(name, `${value}px`);
    }
  }

  /** What is seen, in words. */
  _said() {
    const { shot, view, take } = this._store;
    const where = `Frame ${view.frame}`;
    if (view.mode === "clip" && take) return `${where} of the take with seed ${take.request.seed}, ${take.state}`;
    if (shot.keys[view.frame]) return `${where}: key drawing ${shot.keys[view.frame].name}`.trim();
    const sketch = shot.sketches[view.frame];
    return `${where}: ${sketch ? `a sketch of ${sketch.strokes.length} strokes` : "no drawing"}`;
  }

  // ------------------------------------------------------------------------------------------------------- the pen

  get _canDraw() {
    const { view, shot } = this._store;
    const shown = span(shot);
    const isBetween = shown !== null && view.frame > shown.first && view.frame <= shown.last && !shot.keys[view.frame];
    return view.mode === "edit" && view.tool !== "hand" && isBetween && this._store.model?.has_sketches;
  }

  /** Says why the pen does not draw, if it should. */
  _sayWhyNot() {
    const { view, shot } = this._store;
    if (view.tool === "hand") return;
    if (view.mode === "clip") say("Choose Edit to sketch.");
    else if (!this._store.model?.has_sketches) say("This model takes no sketches.");
    else if (shot.keys[view.frame]) say("This frame has a key drawing; sketches guide the frames between two keys.");
    else say("Sketches guide the frames between two keys: choose one of those.");
  }

  _listen() {
    const canvas = this._canvas;
    canvas.addEventListener("pointerdown", (event) => this._down(event));
    canvas.addEventListener("pointermove", (event) => this._move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this._up(/** @type {PointerEvent} */ (event)));
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    const wheel = (/** @type {WheelEvent} */ event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return; // else the page scrolls
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), this._fromMiddle(event));
    };
    canvas.addEventListener("wheel", wheel, { passive: false });
  }

  /** @param {MouseEvent} event */
  _fromMiddle(event) {
    const box = this._canvas.getBoundingClientRect();
    return { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
  }

  /**
   * @param {PointerEvent} event
   * @returns {[number, number, number]}
   */
  _point(event) {
    const box = this._canvas.getBoundingClientRect();
    const paper = this._paper;
    const pressure = event.pointerType === "pen" ? event.pressure : 0.5;
    const [x, y] = [event.clientX - box.left - paper.x, event.clientY - box.top - paper.y];
    return [round(x / paper.width), round(y / paper.height), round(pressure)];
  }

  /** @param {PointerEvent} event */
  _down(event) {
    const has = (/** @type {string} */ kind) => [...this._pointers.values()].some((one) => one.pointerType === kind);
    if (event.pointerType === "touch" && has("pen")) return; // the hand that holds it
    if (event.pointerType === "pen" && has("touch")) this._forgetPointers(); // the hand lay down first
    this._canvas.setPointerCapture(event.pointerId);
    this._pointers.set(event.pointerId, event);
    const isHand = event.shiftKey || event.button === 1;
    if (this._pointers.size > 1 || isHand || !this._canDraw) {
      if (this._pointers.size === 1 && !isHand) this._sayWhyNot();
      this._stroke = null;
      this._pans = true;
      this.draw();
      return;
    }
    const { view } = this._store;
    const erases = view.tool === "eraser" || (event.buttons & 32) !== 0;
    this._stroke = { points: [this._point(event)], size: erases ? view.size * 2 : view.size, erases };
    this._strokeOf = { frame: view.frame, opened: this._store.opened };
    this._store.look({ playing: false }); // it is drawn over the frame that was seen then
    this.draw();
  }

  _forgetPointers() {
    this._pointers.clear();
    this._stroke = null;
    this._pans = false;
  }

  /** @param {PointerEvent} event */
  _move(event) {
    const before = this._pointers.get(event.pointerId);
    if (!before) return;
    if (this._stroke) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) this._addPoint(this._point(one));
      this.draw();
    } else if (this._pans) {
      this._pan(before, event);
    }
    this._pointers.set(event.pointerId, event);
  }

  /**
   * Adds a point to the stroke, unless nobody could see that it is another one.
   * @param {[number, number, number]} point
   */
  _addPoint(point) {
    const { points } = /** @type {Stroke} */ (this._stroke);
    const [x, y] = points[points.length - 1];
    const { width, height } = this._paper;
    if (Math.hypot((point[0] - x) * width, (point[1] - y) * height) >= LEAST_STEP) points.push(point);
  }

  /**
   * Moves the paper; two fingers stretch it, too.
   * @param {PointerEvent} before
   * @param {PointerEvent} event
   */
  _pan(before, event) {
    const share = 1 / this._pointers.size;
    this._shift.x += (event.clientX - before.clientX) * share;
    this._shift.y += (event.clientY - before.clientY) * share;
    const other = [...this._pointers.values()].find((one) => one.pointerId !== event.pointerId);
    if (other) {
      const distance = (/** @type {PointerEvent} */ one) =>
        Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      this.zoomBy(distance(event) / Math.max(1, distance(before)), this._fromMiddle(other));
    }
    this.draw();
  }

  /** @param {PointerEvent} event */
  _up(event) {
    if (!this._pointers.delete(event.pointerId)) return;
    if (!this._pointers.size) this._pans = false;
    const stroke = this._stroke;
    this._stroke = null;
    const { frame, opened } = this._strokeOf;
    if (!stroke || event.type === "pointercancel" || opened !== this._store.opened) {
      this.draw();
      return;
    }
    const { shot } = this._store;
    const sketch = shot.sketches[frame] ?? { picture: null, darkLines: null, strokes: [] };
    const strokes = [...sketch.strokes, stroke];
    this._store.change({ ...shot, sketches: { ...shot.sketches, [frame]: { ...sketch, strokes } } });
  }
}

/** @param {number} value */
const round = (value) => Math.round(value * 1e4) / 1e4;
