/** What the page knows: the shot, its past, the takes of it, and what is looked at. Whoever draws hears of changes. */

import { isOpen } from "./api.js";
import { complain, remember, remembered } from "./dom.js";
import { emptyShot, framesOf, span } from "./shot.js";

/**
 * @typedef {import("./shot.js").Shot} Shot
 * @typedef {import("./api.js").Job} Job
 * @typedef {{kind: "keys" | "gaps" | "sketches" | "prompts", frame: number}} Selection
 * @typedef {{frame: number, mode: "edit" | "clip", tool: "hand" | "brush" | "eraser", size: number, onion: boolean,
 *   traced: boolean, selected: Selection | null, playing: boolean, loops: boolean, fps: number}} View
 * @typedef {{shot: Shot, opened: number}} Past
 */

const MOST_UNDONE = 200;

/** A shot that is edited; there is one in the page. */
export class Store {
  constructor() {
    /** Whether nothing was ever edited in this browser. */
    this.isNew = remembered("shot") === null;
    /** @type {Shot} */
    this.shot = { ...emptyShot(), ...(remembered("shot") ?? {}) };
    /** @type {View} */
    this.view = {
      frame: 0,
      mode: "edit",
      tool: "brush",
      size: 0.01,
      onion: true,
      traced: false,
      selected: null,
      playing: false,
      loops: true,
      fps: 8,
    };
    /** @type {Job[]} */
    this.takes = [];
    /** @type {string | null} */
    this.chosen = remembered("chosen");
    /** @type {import("./api.js").Model[]} */
    this.models = [];
    /** Which shot it is: grows by one with each that is opened, so that what was awaited does not land in another one. */
    this.opened = 0;
    this._mostOpened = 0;
    /** @type {Map<number, {takes: Job[], chosen: string | null}>} Of shots that Undo and Redo can bring back. */
    this._takesOf = new Map();
    /** @type {Past[]} */
    this._undone = [];
    /** @type {Past[]} */
    this._done = [];
    /** @type {(() => void)[]} */
    this._listeners = [];
    this._asked = false;
    this._isKept = true;
  }

  /** @param {() => void} listener Is called once for many changes, before the next frame is shown. */
  listen(listener) {
    this._listeners.push(listener);
  }

  /** Tells all listeners. */
  tell() {
    if (this._asked) return;
    this._asked = true;
    const go = () => {
      if (!this._asked) return;
      this._asked = false;
      for (const listener of this._listeners) listener();
    };
    requestAnimationFrame(go);
    setTimeout(go, 100); // a page in the background gets no frames
  }

  /** @param {Shot} shot Takes the place of the present one, which can be had back. */
  change(shot) {
    if (shot === this.shot || JSON.stringify(shot) === JSON.stringify(this.shot)) return;
    this._keep();
    this._set(shot);
  }

  /** Makes Undo bring back the present shot. */
  _keep() {
    this._done.push({ shot: this.shot, opened: this.opened });
    if (this._done.length > MOST_UNDONE) this._done.shift();
    this._undone = [];
  }

  /** @param {Partial<View>} changes */
  look(changes) {
    Object.assign(this.view, changes);
    this._bound();
    this.tell();
  }

  /** Keeps the playhead where there are frames. */
  _bound() {
    this.view.frame = Math.min(this.view.frame, this.lastFrame);
  }

  /** @param {number} frame */
  seek(frame) {
    this.look({ frame: Math.max(0, Math.min(this.lastFrame, Math.round(frame))) });
  }

  /** The last frame that can be looked at: there is room after the last key, and for a take that is longer. */
  get lastFrame() {
    const frames = framesOf(this.shot.keys);
    return Math.max(24, (frames[frames.length - 1] ?? 0) + 8, this.played.last);
  }

  /**
   * Waits for something that is meant for the present shot.
   * @template T
   * @param {Promise<T>} awaited
   * @returns {Promise<T>} which fails if another shot is open by then.
   */
  async forThisShot(awaited) {
    const { opened } = this;
    const value = await awaited;
    if (this.opened !== opened) throw new Error("another shot was opened before this had come: bring it again");
    return value;
  }

  get canUndo() {
    return this._done.length > 0;
  }

  get canRedo() {
    return this._undone.length > 0;
  }

  /** @returns {boolean} whether there was anything. */
  undo() {
    return this._step(this._done, this._undone);
  }

  /** @returns {boolean} whether there was anything. */
  redo() {
    return this._step(this._undone, this._done);
  }

  /**
   * @param {Shot} shot Another one; Undo brings back the one before, with its takes.
   * @param {Job[]} takes
   */
  open(shot, takes) {
    if (JSON.stringify(this.shot) !== JSON.stringify(emptyShot())) this._keep();
    this._takesOf.set(this.opened, { takes: this.takes, chosen: this.chosen });
    this._mostOpened += 1;
    this.opened = this._mostOpened;
    this.setTakes(takes, takes[0]?.id ?? null);
    this._set(shot);
    this.look({ frame: framesOf(shot.keys)[0] ?? 0, selected: null, playing: false, mode: "edit" });
  }

  /**
   * @param {Job[]} takes
   * @param {string | null} [chosen]
   */
  setTakes(takes, chosen = this.chosen) {
    this.takes = takes;
    this.chosen = takes.some((take) => take.id === chosen) ? chosen : (takes[0]?.id ?? null);
    remember("takes", takes.map((take) => take.id));
    remember("chosen", this.chosen);
    this.tell();
  }

  /**
   * Shows takes that were just asked for, beside those that are still being drawn.
   * @param {Job[]} made
   * @param {number} opened The shot that they are of.
   */
  addTakes(made, opened) {
    const isShown = opened === this.opened;
    const before = isShown ? this.takes : (this._takesOf.get(opened)?.takes ?? []);
    const others = before.filter((take) => isOpen(take) && made.every((one) => one.id !== take.id));
    const takes = [...made, ...others];
    const chosen = made[0].id;
    if (!isShown) {
      this._takesOf.set(opened, { takes, chosen });
      return;
    }
    this.setTakes(takes, chosen);
    this.look({ mode: "clip", playing: false });
  }

  /** @param {string[]} ids Of takes that are no longer there. */
  forgetTakes(ids) {
    for (const [opened, { takes, chosen }] of this._takesOf) {
      this._takesOf.set(opened, { takes: takes.filter((take) => !ids.includes(take.id)), chosen });
    }
    this.setTakes(this.takes.filter((take) => !ids.includes(take.id)));
  }

  /** @param {Job} job As the server knows it now. */
  putTake(job) {
    this.takes = this.takes.map((take) => (take.id === job.id ? job : take));
    this.tell();
  }

  /** The take that is shown and exported. */
  get take() {
    return this.takes.find((take) => take.id === this.chosen) ?? null;
  }

  /** The model that draws. */
  get model() {
    return this.models.find((one) => one.name === this.shot.model) ?? this.models[0];
  }

  /** Width and height of what is drawn, in pixels, and whether it shows all of a key. */
  get size() {
    const { width, height } = this.model ?? { width: 512, height: 320 };
    const { options } = this.shot;
    return { width: options.width ?? width, height: options.height ?? height, whole: options.fit === "pad" };
  }

  /** The frames that are played: those of the shown take, else those of the shot. */
  get played() {
    const take = this.view.mode === "clip" ? this.take : null;
    if (take?.shape.length) {
      const first = firstFrame(take);
      return { first, last: first + take.shape[0] - 1 };
    }
    return span(this.shot) ?? { first: 0, last: 0 };
  }

  /**
   * @param {Past[]} from
   * @param {Past[]} to
   */
  _step(from, to) {
    const past = from.pop();
    if (!past) return false;
    to.push({ shot: this.shot, opened: this.opened });
    if (past.opened !== this.opened) {
      this._takesOf.set(this.opened, { takes: this.takes, chosen: this.chosen });
      const { takes, chosen } = this._takesOf.get(past.opened) ?? { takes: [], chosen: null };
      this.opened = past.opened;
      this.setTakes(takes, chosen);
      this.look({ selected: null, playing: false, mode: "edit" });
    }
    this._set(past.shot);
    return true;
  }

  /** @param {Shot} shot */
  _set(shot) {
    this.shot = shot;
    const { selected } = this.view;
    const table = selected && shot[selected.kind === "gaps" ? "keys" : selected.kind];
    if (table && table[selected.frame] === undefined) this.view.selected = null; // a prompt may be empty
    this._bound();
    const isKept = remember("shot", shot);
    if (!isKept && this._isKept) complain("This browser has no room to keep the shot: draw it before you close the page.");
    this._isKept = isKept;
    this.tell();
  }
}

/**
 * The frame of a job's first picture.
 * @param {Job} job
 */
export const firstFrame = (job) => (job.request.keys ? framesOf(job.request.keys)[0] : 0);
