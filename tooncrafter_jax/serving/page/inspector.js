/** Below the time line: what is selected in it, in fields. */

import { byId, make, rebuild, say, told } from "./dom.js";
import { take } from "./pictures.js";
import { framesOf, SPACING, withKey, withoutItem } from "./shot.js";

const EXPOSURES = ["1", "2", "3", "4"];

/** Fields of the key, gap, sketch or prompt that is selected. */
export class Inspector {
  /**
   * @param {import("./store.js").Store} store
   * @param {import("./timeline.js").Timeline} timeline
   */
  constructor(store, timeline) {
    this._store = store;
    this._timeline = timeline;
    this._parent = byId("inspector");
    /** @type {string[]} */
    this._timings = [];
    this._built = "";
    /** @type {import("./shot.js").Shot | null} */
    this._shown = null;
  }

  /** @param {any} document The OpenAPI description, which names the timings. */
  describe(document) {
    this._timings = document.components.schemas.ShotDescription.properties.timing.examples ?? ["linear"];
    byId("timings").replaceChildren(...this._timings.map((value) => make("option", { value })));
    byId("exposures").replaceChildren(...EXPOSURES.map((value) => make("option", { value })));
    this._built = "";
  }

  /** Shows what has changed. */
  draw() {
    const { shot, view } = this._store;
    const state = JSON.stringify(view.selected);
    if (shot === this._shown && state === this._built) return;
    this._shown = shot;
    this._built = state;
    rebuild(this._parent, () => this._fields());
  }

  _fields() {
    const { selected } = this._store.view;
    if (!selected) {
      const text = "Select a key, a gap, a sketch or a prompt to change it; drag it, or move it with the arrow keys.";
      return [make("p", { class: "hint", text })];
    }
    const { kind, frame } = selected;
    if (kind === "gaps") return this._gap(frame);
    const title = make("strong", { text: { keys: "Key", sketches: "Sketch", prompts: "Prompt" }[kind] });
    const remove = make("button", {
      type: "button",
      "data-id": "remove",
      text: "Remove",
      onclick: () => this._timeline.removeSelected(),
    });
    const place = this._place(kind, frame);
    if (kind === "prompts") return [title, place, this._text(frame), remove];
    if (kind === "keys") return [title, place, this._replace(), this._again(), remove];
    return [title, place, this._clear(frame), remove];
  }

  /** The frame of what is selected: what was written before a press may have moved it. */
  get _frame() {
    return /** @type {import("./store.js").Selection} */ (this._store.view.selected).frame;
  }

  /**
   * Changes the shot as a field says: that field is right, and what is being written in another one stays.
   * @param {Partial<import("./shot.js").Shot>} changes
   */
  _change(changes) {
    this._store.change({ ...this._store.shot, ...changes });
    this._shown = this._store.shot;
  }

  /**
   * @param {"keys" | "sketches" | "prompts"} kind
   * @param {number} frame
   */
  _place(kind, frame) {
    const attributes = { type: "number", min: 0, max: 9999, step: 1, required: true, value: frame };
    return field("Frame", "frame", attributes, (value, input) => {
      if (!input.reportValidity() || Number(value) === this._frame) return;
      if (this._timeline.move(kind, this._frame, Number(value), true)) return;
      input.value = String(this._frame);
      say("There is one on that frame already.");
    });
  }

  /** @param {number} frame */
  _text(frame) {
    const attributes = { type: "text", value: this._store.shot.prompts[frame] };
    const text = field("What happens from here on", "text", attributes, (value) =>
      this._change({ prompts: { ...this._store.shot.prompts, [this._frame]: value } }),
    );
    text.classList.add("wide");
    return text;
  }

  /** @param {number} frame */
  _gap(frame) {
    const { shot } = this._store;
    /** @param {"timing" | "exposure"} name */
    const changed = (name) => (/** @type {string} */ value, /** @type {HTMLInputElement} */ input) => {
      input.value = value.trim() || { timing: "linear", exposure: "1" }[name];
      this._change({ [name]: { ...this._store.shot[name], [frame]: input.value } });
    };
    const timing = { type: "text", list: "timings", value: shot.timing[frame] ?? "linear" };
    const exposure = { type: "text", list: "exposures", value: shot.exposure[frame] ?? "1" };
    return [
      make("strong", { text: `From key ${frame} on` }),
      field("Timing", "timing", timing, changed("timing")),
      field("Each drawing is held for (frames)", "exposure", exposure, changed("exposure")),
    ];
  }

  _replace() {
    const input = make("input", {
      type: "file",
      accept: "image/*",
      "data-id": "replace",
      onchange: told(async () => {
        const frame = this._frame;
        const [taken] = await this._store.forThisShot(take([...input.files]));
        this._store.change(withKey(this._store.shot, frame, { picture: taken.picture, name: taken.name }));
      }),
    });
    return make("label", { class: "field" }, "Another picture", input);
  }

  /** The key once more, as a loop needs it. */
  _again() {
    return make("button", {
      type: "button",
      "data-id": "again",
      text: "Again at the end",
      onclick: () => {
        const { shot } = this._store;
        const frames = framesOf(shot.keys);
        const to = frames[frames.length - 1] + SPACING;
        this._store.change(withKey(shot, to, shot.keys[this._frame]));
        say(`The same key is on frame ${to}, too.`);
      },
    });
  }

  /** @param {number} frame */
  _clear(frame) {
    return make("button", {
      type: "button",
      "data-id": "clear",
      text: "Clear the strokes",
      disabled: !this._store.shot.sketches[frame].strokes.length,
      onclick: () => {
        const { shot } = this._store;
        const sketch = shot.sketches[this._frame];
        const sketches = { ...shot.sketches, [this._frame]: { ...sketch, strokes: [] } };
        this._store.change(sketch.picture ? { ...shot, sketches } : withoutItem(shot, "sketches", this._frame));
        byId("ruler").focus({ preventScroll: true }); // the button can be pressed no more
      },
    });
  }
}

/**
 * A field with its name.
 * @param {string} label
 * @param {string} id
 * @param {Record<string, any>} attributes
 * @param {(value: string, input: HTMLInputElement) => void} onChange
 */
function field(label, id, attributes, onChange) {
  const input = make("input", { ...attributes, "data-id": id, onchange: () => onChange(input.value, input) });
  return make("label", { class: "field" }, label, input);
}
