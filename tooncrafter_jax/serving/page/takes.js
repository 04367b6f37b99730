/** Takes: the shot as it was drawn with one seed each, side by side, while they are drawn and afterwards. */

import { cancel, isOpen, jobs, previewAddress, removeJob, submit } from "./api.js";
import { byId, calm, make, rebuild, remembered, say, told } from "./dom.js";
import { Following } from "./following.js";
import { asRequest, MOST_TAKES, span } from "./shot.js";
import { sendSketches } from "./sketching.js";

/** @typedef {import("./api.js").Job} Job */

const DEFAULT_SEED = 123;
const MOST_SEED = 2 ** 32 - 1;
const STATES = { waiting: "waits", running: "is drawn", done: "done", failed: "failed", cancelled: "cancelled" };

/** Asks for takes, follows them, and shows them. */
export class Takes {
  /**
   * @param {import("./store.js").Store} store
   * @param {import("./player.js").Frames} frames
   * @param {import("./sketching.js").SketchLayers} layers
   */
  constructor(store, frames, layers) {
    this._store = store;
    this._frames = frames;
    this._layers = layers;
    this._parent = byId("take-list");
    this._section = byId("takes");
    this._following = new Following(
      (job) => this._changed(job),
      (id) => this._store.forgetTakes([id]),
    );
    /** @type {Map<string, HTMLCanvasElement>} */
    this._canvases = new Map();
    this._built = "";
    this._isAsking = false;
  }

  /** Finds the takes that were shown before the page was loaded again, unless another shot is opened meanwhile. */
  async restore() {
    const wanted = remembered("takes") ?? [];
    if (!wanted.length) return;
    const { opened } = this._store;
    const found = (await jobs(100)).jobs.filter((job) => wanted.includes(job.id));
    if (this._store.opened !== opened) return;
    found.sort((a, b) => wanted.indexOf(a.id) - wanted.indexOf(b.id));
    this._store.setTakes(found);
    if (found.length) this._store.look({ mode: "clip" });
  }

  /** Draws the shot, unless that is just being asked for. */
  async request() {
    if (this._isAsking) return;
    calm();
    const { shot } = this._store;
    if (!span(shot)) throw new Error("a shot needs two keys: drop two drawings on the time line");
    this._setAsking(true);
    try {
      await this._ask(shot);
    } finally {
      this._setAsking(false);
    }
  }

  /** @param {boolean} isAsking */
  _setAsking(isAsking) {
    this._isAsking = isAsking;
    byId("draw").setAttribute("aria-disabled", String(isAsking)); // disabled, it would lose the focus
  }

  /**
   * Asks for as many takes as are wanted, with seeds that follow each other.
   * @param {import("./shot.js").Shot} shot
   */
  async _ask(shot) {
    const { opened, size } = this._store;
    const seed = this._seed;
    const sketches = await sendSketches(shot, size, this._layers);
    const count = Math.max(1, Math.min(MOST_TAKES, shot.takes));
    const made = [];
    try {
      for (let number = 0; number < count; number += 1) {
        made.push(await submit(asRequest(shot, sketches, (seed + number) % (MOST_SEED + 1))));
      }
    } finally {
      if (made.length) this._store.addTakes(made, opened);
    }
    const notes = [...new Set(made.flatMap((job) => job.notes))];
    say(notes.length ? `Drawing. ${notes.join(". ")}.` : "Drawing.");
  }

  /** @param {Job} job */
  _changed(job) {
    const before = this._store.takes.find((take) => take.id === job.id);
    this._store.putTake(job);
    if (isOpen(job) || (before && !isOpen(before))) return;
    if (job.state === "failed") say(`The take with seed ${job.request.seed} failed: ${job.error}`);
    else if (job.state === "cancelled") say(`The take with seed ${job.request.seed} is cancelled.`);
    else say(`The take with seed ${job.request.seed} is done, after ${job.seconds.toFixed(1)} s.`);
  }

  /** Shows what has changed. */
  draw() {
    const { takes, chosen } = this._store;
    this._frames.keep(takes.map((take) => take.id));
    this._following.follow(takes.filter(isOpen).map((take) => take.id));
    this._section.hidden = !takes.length;
    const state = JSON.stringify([chosen, this._seed, takes.map((take) => [take.id, take.state, take.previews > 0])]);
    if (state !== this._built) {
      this._built = state;
      rebuild(this._parent, () => {
        this._canvases.clear();
        this._store.tell(); // draws them
        return this._store.takes.map((take) => this._card(take));
      });
    }
    for (const take of takes) this._drawCard(take);
  }

  /** @param {Job} take */
  _card(take) {
    const { seed } = take.request;
    const choice = make("input", {
      type: "radio",
      name: "take",
      "data-id": `choose-${take.id}`,
      checked: take.id === this._store.chosen,
      onchange: () => {
        this._store.setTakes(this._store.takes, take.id);
        this._store.look({ mode: "clip" });
      },
    });
    const label = make("label", { class: "choice" }, choice, `Seed ${seed}`);
    const [width, height] = [take.shape[2] ?? this._store.size.width, take.shape[1] ?? this._store.size.height];
    const canvas = make("canvas", { width, height, role: "img", "aria-label": `The take with seed ${seed}` });
    if (take.state === "done") this._canvases.set(take.id, canvas);
    const preview = make("img", { "data-preview": take.id, alt: `Preview of the take with seed ${seed}`, hidden: true });
    const picture = take.state === "done" ? canvas : preview;
    const bar = make("progress", { "data-progress": take.id, max: 1, "aria-label": `Progress of seed ${seed}` });
    const status = make("span", { class: `state ${take.state}`, "data-state": take.id, text: STATES[take.state] });
    const actions = make("div", { class: "actions" }, status, this._action(take));
    const why = take.state === "failed" ? [make("p", { class: "why", text: take.error })] : [];
    const keep = take.state === "done" && seed !== this._seed ? [this._keep(seed)] : [];
    const classes = take.id === this._store.chosen ? "take chosen" : "take";
    const inner = make("div", { class: "picture" }, picture);
    return make("li", { class: classes }, inner, label, ...(isOpen(take) ? [bar] : []), actions, ...keep, ...why);
  }

  /** The seed of the first take that is drawn next. */
  get _seed() {
    return this._store.shot.settings.seed ?? DEFAULT_SEED;
  }

  /**
   * @param {number} seed
   */
  _keep(seed) {
    return make("button", {
      type: "button",
      "data-id": `seed-${seed}`,
      "aria-label": `Keep seed ${seed} for what is drawn next`,
      text: "Keep seed",
      onclick: () => {
        const { shot } = this._store;
        this._store.change({ ...shot, takes: 1, settings: { ...shot.settings, seed } });
        say(`The shot is drawn with seed ${seed} from now on.`);
      },
    });
  }

  /** @param {Job} take */
  _action(take) {
    const { seed } = take.request;
    if (isOpen(take)) {
      return make("button", {
        type: "button",
        "data-id": `cancel-${take.id}`,
        "aria-label": `Cancel the take with seed ${seed}`,
        text: "Cancel",
        onclick: told(async () => this._changed(await cancel(take.id))),
      });
    }
    return make("button", {
      type: "button",
      "data-id": `remove-${take.id}`,
      "aria-label": `Remove the take with seed ${seed}`,
      text: "Remove",
      onclick: told(async () => {
        await removeJob(take.id);
        this._store.forgetTakes([take.id]);
        if (!this._store.takes.length) byId("draw").focus();
        say(`The take with seed ${seed} is removed.`);
      }),
    });
  }

  /** @param {Job} take */
  _drawCard(take) {
    const canvas = this._canvases.get(take.id);
    const frame = canvas && this._frames.frame(take, this._store.view.frame);
    const context = canvas?.getContext("2d");
    if (canvas && context && frame) {
      context.clearRect(0, 0, canvas.width, canvas.height); // the frame before shines through a transparent one
      context.drawImage(frame, 0, 0, canvas.width, canvas.height);
    }
    const preview = this._parent.querySelector(`[data-preview="${take.id}"]`);
    if (preview && take.previews > 0 && preview.getAttribute("src") !== previewAddress(take)) {
      preview.src = previewAddress(take);
      preview.hidden = false;
    }
    const bar = this._parent.querySelector(`[data-progress="${take.id}"]`);
    const { done, total } = take.progress;
    if (bar && total) bar.value = done / total;
    const status = this._parent.querySelector(`[data-state="${take.id}"]`);
    if (status && take.state === "running" && total) status.textContent = `${done} of ${total}`;
  }
}
