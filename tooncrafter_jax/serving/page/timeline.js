/** The time line: keys, what is held between them, sketches and prompts on their frames; everything can be dragged. */

import { pictureAddress } from "./api.js";
import { byId, make, rebuild, say } from "./dom.js";
import { retried } from "./pictures.js";
import { framesOf, gaps, moved, usedSketches, withoutItem } from "./shot.js";

/**
 * @typedef {import("./store.js").Selection} Selection
 * @typedef {"keys" | "sketches" | "prompts"} Kind
 */

const [LEAST_FRAME, MOST_FRAME] = [14, 80];
const NAMES = { keys: "key", sketches: "sketch", prompts: "prompt" };

/** Shows and changes when things are. */
export class Timeline {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this._store = store;
    this._track = byId("track");
    this._rows = byId("rows");
    this._ruler = byId("ruler");
    this._head = byId("playhead");
    this._width = 0;
    this._built = "";
    /** @type {import("./shot.js").Shot | null} */
    this._shown = null;
    /** @type {string | undefined} */
    this._focus = undefined;
    this._listen();
    new ResizeObserver(() => this.draw()).observe(this._track);
  }

  /** Pixels of a frame. */
  get _frame() {
    const room = this._track.clientWidth - 24;
    return Math.max(LEAST_FRAME, Math.min(MOST_FRAME, Math.floor(room / (this._store.lastFrame + 1))));
  }

  /**
   * The frame at a place of the window.
   * @param {number} x
   */
  frameAt(x) {
    return Math.max(0, Math.floor((x - this._rows.getBoundingClientRect().left) / this._frame));
  }

  /** Shows what has changed. */
  draw() {
    const { shot, view } = this._store;
    const state = JSON.stringify([view.selected, this._frame, this._store.lastFrame]);
    if (shot !== this._shown || state !== this._built) {
      this._shown = shot;
      this._built = state;
      this._rows.style.setProperty("--frame", `${this._frame}px`);
      this._rows.style.setProperty("--frames", String(this._store.lastFrame + 1));
      // each may be called later, and then shows the shot of that time
      for (const [id, build] of /** @type {[string, () => Node[]][]} */ ([
        ["row-numbers", () => this._numbers()],
        ["row-keys", () => framesOf(this._store.shot.keys).map((frame) => this._key(frame))],
        ["row-gaps", () => this._gaps()],
        ["row-sketches", () => framesOf(this._store.shot.sketches).map((frame) => this._sketch(frame))],
        ["row-prompts", () => framesOf(this._store.shot.prompts).map((frame) => this._prompt(frame))],
      ])) {
        rebuild(byId(id), build, this._focus);
      }
      this._focus = undefined;
    }
    this._head.style.setProperty("--at", String(view.frame));
    this._ruler.setAttribute("aria-valuenow", String(view.frame));
    this._ruler.setAttribute("aria-valuemax", String(this._store.lastFrame));
    this._ruler.setAttribute("aria-valuetext", `frame ${view.frame}${shot.keys[view.frame] ? ", a key" : ""}`);
    if (view.playing) this._keepInView(view.frame);
  }

  /** @param {number} frame */
  _keepInView(frame) {
    const x = frame * this._frame;
    const { scrollLeft, clientWidth } = this._track;
    if (x < scrollLeft || x > scrollLeft + clientWidth - 48) this._track.scrollLeft = x - 48;
  }

  _numbers() {
    const each = this._frame >= 28 ? 1 : this._frame >= 18 ? 2 : 4;
    const found = [];
    for (let frame = 0; frame <= this._store.lastFrame; frame += each) {
      found.push(at(make("span", { class: "tick", "aria-hidden": "true", text: String(frame) }), frame));
    }
    return found;
  }

  /**
   * What can be chosen, dragged and moved by the arrows.
   * @param {Kind} kind
   * @param {number} frame
   * @param {string} label
   * @param {...(Node | string)} children
   */
  _item(kind, frame, label, ...children) {
    const { selected } = this._store.view;
    const isSelected = selected?.kind === kind && selected.frame === frame;
    const item = make(
      "button",
      {
        class: `item ${kind}`,
        type: "button",
        "data-id": `${kind}-${frame}`,
        "aria-label": label,
        "aria-pressed": String(isSelected),
        title: label,
        onclick: () => this._select(kind, frame),
        onkeydown: (/** @type {KeyboardEvent} */ event) => this._keyed(event, kind, frame),
        onpointerdown: (/** @type {PointerEvent} */ event) => this._drag(event, item, kind, frame),
      },
      ...children,
    );
    return at(item, frame);
  }

  /** @param {number} frame */
  _key(frame) {
    const key = this._store.shot.keys[frame];
    const image = make("img", { src: pictureAddress(key.picture), alt: "", draggable: "false" });
    retried(image, () => image.isConnected);
    return this._item("keys", frame, `Key on frame ${frame}${key.name && `: ${key.name}`}`, image);
  }

  /** @param {number} frame */
  _sketch(frame) {
    const isUsed = usedSketches(this._store.shot).includes(frame);
    const item = this._item("sketches", frame, `Sketch on frame ${frame}${isUsed ? "" : ", which guides no frame"}`, "✎");
    item.classList.toggle("unused", !isUsed);
    return item;
  }

  /** @param {number} frame */
  _prompt(frame) {
    const { prompts } = this._store.shot;
    const text = prompts[frame] || "no prompt";
    const next = framesOf(prompts).find((one) => one > frame) ?? this._store.lastFrame + 1;
    return at(this._item("prompts", frame, `Prompt from frame ${frame}: ${text}`, text), frame, next - frame);
  }

  _gaps() {
    const { selected } = this._store.view;
    const wide = gaps(this._store.shot).filter(({ first, last }) => last - first > 1);
    return wide.map(({ first, last, timing, exposure }) => {
      const holds = exposure === "1" ? "on ones" : exposure === "2" ? "on twos" : `held ${exposure}`;
      const gap = make("button", {
        class: "item gaps",
        type: "button",
        "data-id": `gaps-${first}`,
        "aria-label": `Frames ${first + 1} to ${last - 1}: ${timing}, ${holds}`,
        "aria-pressed": String(selected?.kind === "gaps" && selected.frame === first),
        text: `${timing}, ${holds}`,
        onclick: () => this._select("gaps", first),
      });
      gap.style.setProperty("--hold", String(parseInt(exposure, 10) || 1));
      return at(gap, first + 1, last - first - 1);
    });
  }

  /**
   * @param {Selection["kind"]} kind
   * @param {number} frame
   */
  _select(kind, frame) {
    if (document.activeElement instanceof HTMLInputElement) document.activeElement.blur(); // a tap may leave it there
    this._store.look({ selected: { kind, frame }, playing: false });
    if (kind !== "gaps") this._store.seek(frame);
  }

  /**
   * @param {Kind} kind
   * @param {number} from
   * @param {number} to
   * @param {boolean} [keepsFocus] Whether the focus stays where it is, instead of going with what is moved.
   */
  move(kind, from, to, keepsFocus = false) {
    const shot = moved(this._store.shot, kind, from, to);
    if (shot === this._store.shot) return false;
    if (!keepsFocus) this._focus = `${kind}-${to}`;
    this._store.change(shot);
    this._store.look({ selected: { kind, frame: to } });
    this._store.seek(to);
    say(`The ${NAMES[kind]} is on frame ${to} now.`);
    return true;
  }

  /** Removes what is selected. */
  removeSelected() {
    const { selected } = this._store.view;
    if (!selected || selected.kind === "gaps") return;
    this._store.change(withoutItem(this._store.shot, selected.kind, selected.frame));
    say(`The ${NAMES[selected.kind]} on frame ${selected.frame} is removed; Undo brings it back.`);
    this._ruler.focus({ preventScroll: true });
  }

  /**
   * @param {KeyboardEvent} event
   * @param {Kind} kind
   * @param {number} frame
   */
  _keyed(event, kind, frame) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step && !event.ctrlKey && !event.metaKey && !event.altKey) {
      let to = frame + step * (event.shiftKey ? 5 : 1);
      while (this._store.shot[kind][to] && to > 0) to += step; // past others
      this.move(kind, frame, to);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this._store.look({ selected: { kind, frame } });
      this.removeSelected();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /**
   * @param {PointerEvent} down
   * @param {HTMLElement} item
   * @param {Kind} kind
   * @param {number} from
   */
  _drag(down, item, kind, from) {
    if (down.button !== 0) return;
    let to = from;
    item.setPointerCapture(down.pointerId); // a fast pointer has left the item before it first moves
    const move = (/** @type {PointerEvent} */ event) => {
      const shift = Math.round((event.clientX - down.clientX) / this._frame);
      if (to === from && !shift) return;
      to = Math.max(0, from + shift);
      item.classList.add("dragged");
      item.style.setProperty("--at", String(to));
    };
    const end = (/** @type {Event} */ event) => {
      for (const name of ["pointerup", "pointercancel"]) item.removeEventListener(name, end);
      item.removeEventListener("pointermove", move);
      item.classList.remove("dragged");
      if (to === from) return;
      const swallow = (/** @type {Event} */ click) => click.stopImmediatePropagation(); // it would select the old place
      item.addEventListener("click", swallow, true);
      setTimeout(() => item.removeEventListener("click", swallow, true), 50);
      const isMoved = event.type === "pointerup" && this.move(kind, from, to);
      if (!isMoved) item.style.setProperty("--at", String(from));
    };
    item.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) item.addEventListener(name, end);
  }

  _listen() {
    const ruler = this._ruler;
    const scrub = (/** @type {PointerEvent} */ event) => {
      this._store.look({ playing: false });
      this._store.seek(this.frameAt(event.clientX));
    };
    ruler.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      ruler.setPointerCapture(event.pointerId);
      scrub(event);
    });
    ruler.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      if (ruler.hasPointerCapture(event.pointerId)) scrub(event);
    });
  }
}

/**
 * Puts an element on a frame.
 * @param {HTMLElement} element
 * @param {number} frame
 * @param {number} [frames]
 */
function at(element, frame, frames = 1) {
  element.style.setProperty("--at", String(frame));
  element.style.setProperty("--long", String(frames));
  return element;
}
