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
    const { shot } = this._store;
    if (!selected) {
      const text = "Select a key, a gap, a sketch or a prompt to change it; drag it, or move it with the arrow keys.";
      return [make("p", { class: "hint", text })];
    }
    const { kind, frame } = selected;
    if (kind === "gaps") return this._gap(frame);
    const title = make("strong", { text: { keys: "Key", sketches: "Sketch", prompts: "Prompt" }[kind] });
    const place = field("Frame", "frame", { type: "number", min: 0, max: 9999, step: 1, value: frame }, (value) => {
      if (!this._timeline.move(kind, frame, Number(value))) say("There is one on that frame already.");
    });
    const remove = make("button", {
      type: "button",
      "data-id": "remove",
      text: "Remove",
      onclick: () => this._timeline.removeSelected(),
    });
    if (kind === "prompts") {
      const text = field("What happens from here on", "text", { type: "text", value: shot.prompts[frame] }, (value) =>
        this._store.change({ ...shot, prompts: { ...shot.prompts, [frame]: value } }),
      );
      text.classList.add("wide");
      return [title, place, text, remove];
    }
    if (kind === "keys") return [title, place, this._replace(frame), this._again(frame), remove];
    return [title, place, this._wipe(frame), remove];
  }

  /** @param {number} frame */
  _gap(frame) {
    const { shot } = this._store;
    /** @param {"timing" | "exposure"} name */
    const changed = (name) => (/** @type {string} */ value) => {
      const usual = name === "timing" ? "linear" : "1";
      const { shot: now } = this._store;
      this._store.change({ ...now, [name]: { ...now[name], [frame]: value.trim() || usual } });
      if (value.trim()) this._shown = this._store.shot; // the fields say so already: what is written in another one stays
    };
    const timing = { type: "text", list: "timings", value: shot.timing[frame] ?? "linear" };
    const exposure = { type: "text", list: "exposures", value: shot.exposure[frame] ?? "1" };
    return [
      make("strong", { text: `From key ${frame} on` }),
      field("Timing", "timing", timing, changed("timing")),
      field("Each drawing is held for (frames)", "exposure", exposure, changed("exposure")),
    ];
  }

  /** @param {number} frame */
  _replace(frame) {
    const input = make("input", {
      type: "file",
      accept: "image/*",
      "data-id": "replace",
      onchange: told(async () => {
        const [taken] = await this._store.forThisShot(take([...input.files]));
        this._store.change(withKey(this._store.shot, frame, { picture: taken.picture, name: taken.name }));
      }),
    });
    return make("label", { class: "field" }, "Another picture", input);
  }

  /**
   * The key once more, as a loop needs it.
   * @param {number} frame
   */
  _again(frame) {
    const { shot } = this._store;
    const frames = framesOf(shot.keys);
    const to = frames[frames.length - 1] + SPACING;
    return make("button", {
      type: "button",
      "data-id": "again",
      text: "Again at the end",
      onclick: () => {
        this._store.change(withKey(shot, to, shot.keys[frame]));
        say(`The same key is on frame ${to}, too.`);
      },
    });
  }

  /** @param {number} frame */
  _wipe(frame) {
    const { shot } = this._store;
    const sketch = shot.sketches[frame];
    return make("button", {
      type: "button",
      "data-id": "clear",
      text: "Wipe",
      disabled: !sketch.strokes.length,
      onclick: () => {
        const empty = { ...sketch, strokes: [] };
        const sketches = { ...shot.sketches, [frame]: empty };
        this._store.change(sketch.picture ? { ...shot, sketches } : withoutItem(shot, "sketches", frame));
      },
    });
  }
}

/**
 * A field with its name.
 * @param {string} label
 * @param {string} id
 * @param {Record<string, any>} attributes
 * @param {(value: string) => void} onChange
 */
function field(label, id, attributes, onChange) {
  const input = make("input", { ...attributes, "data-id": id, onchange: () => onChange(input.value) });
  return make("label", { class: "field" }, label, input);
}
