/** Gives the chosen take as a file, in any format that the server has. */

import { result } from "./api.js";
import { byId, make, say } from "./dom.js";

const WORDS = {
  mp4: "mp4, video",
  webm: "webm, video with opacity",
  mov: "mov, ProRes for editing",
  gif: "gif",
  webp: "webp, moving picture",
  apng: "apng, exact moving picture",
  png: "png, all frames (zip)",
  xdts: "xdts, time sheet with drawings (zip)",
  oca: "oca, time sheet with drawings (zip)",
  csv: "csv, time sheet with drawings (zip)",
};

/** A format, and the button that fetches it. */
export class Export {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this._store = store;
    this._format = byId("format");
    this._button = byId("export");
  }

  /** @param {any} document The OpenAPI description, which names the formats. */
  describe(document) {
    const { parameters } = document.paths["/v1/jobs/{id}/result/{form}"].get;
    const { schema } = parameters.find((/** @type {any} */ one) => one.name === "form");
    const forms = /** @type {(keyof typeof WORDS)[]} */ (schema.enum);
    this._format.replaceChildren(...forms.map((value) => make("option", { value, text: WORDS[value] ?? value })));
  }

  /** Fetches the file; the browser keeps it where it keeps what is fetched. */
  async save() {
    const { take, shot, view } = this._store;
    if (take?.state !== "done") throw new Error("there is nothing to export yet: draw the shot, and choose a take");
    say("The file is being made.");
    const { data, name } = await result(take.id, this._format.value, view.fps);
    const words = (shot.name || "shot").replace(/[^\p{L}\p{N}_-]+/gu, "-").slice(0, 80);
    const address = URL.createObjectURL(data);
    const link = make("a", { href: address, download: `${words}-${take.request.seed}${name.slice(name.lastIndexOf("."))}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    say(`${link.download} is saved.`);
  }

  /** Shows what has changed. */
  draw() {
    this._button.disabled = this._store.take?.state !== "done";
  }
}
