/** Options of the shot, made from the server's description: their help and ranges are those of the command line. */

import { byId, make } from "./dom.js";
import { SETTINGS } from "./shot.js";

/** @typedef {{kind: "number" | "text" | "switch" | "choice", choices: string[], least?: number, most?: number,
 *   whole: boolean, help: string, usual: any}} Declared */

/** Options that stand above all others. */
const COMMON = ["steps", "guidance_scale", "height", "width"];
const SWITCHES = { on: true, off: false };

/**
 * What a schema says of a field.
 * @param {any} schema
 * @returns {Declared}
 */
function declared(schema) {
  const of = schema.anyOf?.find((/** @type {any} */ one) => one.type !== "null") ?? schema;
  const [, help, given] = /^([\s\S]*?)(?: \(default: ([\s\S]*)\))?$/.exec(schema.description ?? "") ?? [];
  const choices = of.enum ?? (of.const === undefined ? [] : [of.const]);
  const isNumber = of.type === "integer" || of.type === "number";
  const kind = of.type === "boolean" ? "switch" : choices.length ? "choice" : isNumber ? "number" : "text";
  const usual = schema.default ?? given ?? (kind === "switch" ? "off" : "");
  const [least, most, whole] = [of.minimum, of.maximum, of.type === "integer"];
  return { kind, choices, least, most, whole, help: help ?? "", usual: SWITCHES[/** @type {"on"} */ (usual)] ?? usual };
}

/** Fields for the options. */
export class Options {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this._store = store;
    /** @type {{name: string, group: "options" | "settings", one: Declared, input: any, shown: any}[]} */
    this._fields = [];
    this._opened = store.opened;
  }

  /** @param {any} document The OpenAPI description. */
  describe(document) {
    const { Options: options, ShotDescription: shot } = document.components.schemas;
    const names = Object.keys(options.properties);
    const others = names.filter((name) => !COMMON.includes(name));
    this._fields = [];
    /** @type {[string, "options" | "settings", string[], any][]} */
    const parts = [
      ["settings-fields", "settings", SETTINGS, shot],
      ["common-fields", "options", COMMON.filter((name) => names.includes(name)), options],
      ["other-fields", "options", others, options],
    ];
    for (const [id, group, wanted, schema] of parts) {
      byId(id).replaceChildren(...wanted.map((name) => this._field(name, group, declared(schema.properties[name]))));
    }
    this.draw();
  }

  /**
   * @param {string} name
   * @param {"options" | "settings"} group
   * @param {Declared} one
   */
  _field(name, group, one) {
    const id = `option-${name}`;
    const common = { id, "aria-describedby": `${id}-help`, onchange: () => this._changed(name, group, one, input) };
    /** @type {any} */
    let input;
    if (one.kind === "switch") input = make("input", { ...common, type: "checkbox" });
    else if (one.kind === "choice") {
      const entries = one.choices.map((value) => make("option", { value, text: value }));
      input = make("select", common, make("option", { value: "" }), ...entries);
    } else if (one.kind === "number") {
      const [min, max, step] = [one.least, one.most, one.whole ? 1 : "any"];
      input = make("input", { ...common, type: "number", min, max, step });
    } else input = make("input", { ...common, type: "text" });
    this._fields.push({ name, group, one, input, shown: undefined });
    const label = make("label", { for: id, text: name.replaceAll("_", " ") });
    const help = make("p", { id: `${id}-help`, class: "help", text: one.help });
    return make("div", { class: `option ${one.kind}` }, label, input, help);
  }

  /**
   * @param {string} name
   * @param {"options" | "settings"} group
   * @param {Declared} one
   * @param {HTMLInputElement} input
   */
  _changed(name, group, one, input) {
    if (!input.reportValidity()) return;
    const { [name]: _, ...values } = this._store.shot[group];
    const text = input.value.trim();
    if (one.kind === "switch") {
      if (input.checked !== this._usual(name, one)) values[name] = input.checked;
    } else if (text !== "") values[name] = one.kind === "number" ? Number(text) : text;
    this._store.change({ ...this._store.shot, [group]: values });
  }

  /**
   * What counts where nothing is said.
   * @param {string} name
   * @param {Declared} one
   */
  _usual(name, one) {
    const { model } = this._store;
    if (name === "height" || name === "width") return model?.[name] ?? one.usual;
    return model?.sampling[name] ?? one.usual;
  }

  /** Shows and says what is wrong with a value, if one is: it is not in the shot. */
  check() {
    const wrong = this._fields.find(({ input }) => !input.checkValidity());
    if (!wrong) return;
    const { name, input } = wrong;
    for (const closed of document.querySelectorAll("details")) if (closed.contains(input)) closed.open = true;
    input.reportValidity();
    throw new Error(`${name.replaceAll("_", " ")}: ${input.validationMessage}`);
  }

  /** Shows what has changed. */
  draw() {
    const isOther = this._opened !== this._store.opened;
    this._opened = this._store.opened;
    for (const field of this._fields) {
      const { name, group, one, input } = field;
      const value = this._store.shot[group][name];
      const usual = this._usual(name, one);
      if (one.kind === "switch") input.checked = value ?? usual;
      else {
        const isRight = isOther || value !== field.shown || input.validity.valid; // else it is still to be mended
        if (isRight && input !== document.activeElement) input.value = value ?? "";
        field.shown = value;
        if (one.kind === "choice") input.options[0].textContent = `${usual || "as usual"} (default)`;
        else input.placeholder = String(usual);
      }
    }
  }
}
