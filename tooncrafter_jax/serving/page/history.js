/** One's shots, as the server keeps them: each can be opened, looked at and changed again. */

import { isOpen, jobs, pictureAddress, removeJob } from "./api.js";
import { byId, make, rebuild, say, told } from "./dom.js";
import { framesOf, MOST_TAKES, ofJob } from "./shot.js";

/** @typedef {import("./api.js").Job} Job */

const PAGE = 50;

/**
 * Jobs that are takes of one shot: they follow each other, and differ by their seeds alone.
 * @param {Job[]} found
 * @returns {Job[][]}
 */
export function grouped(found) {
  /** @type {{what: string, jobs: Job[]}[]} */
  const groups = [];
  for (const job of found) {
    const { seed: _, ...others } = job.request;
    const what = JSON.stringify(others);
    const last = groups[groups.length - 1];
    if (last?.what === what) last.jobs.push(job);
    else groups.push({ what, jobs: [job] });
  }
  return groups.map((group) => group.jobs);
}

/** The list of shots, in a dialog. */
export class History {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this._store = store;
    this._dialog = byId("history");
    this._list = byId("history-list");
    this._more = byId("history-more");
    /** @type {Job[]} */
    this._jobs = [];
    /** @type {number | null} */
    this._before = null;
    this._more.addEventListener("click", told(() => this._load()));
  }

  /** Shows the list, from the newest on. */
  async show() {
    this._jobs = [];
    this._before = null;
    this._dialog.showModal();
    await this._load();
  }

  /**
   * Opens the newest shot, unless another one is opened meanwhile.
   * @returns {Promise<boolean>} whether it is open.
   */
  async openNewest() {
    const { opened } = this._store;
    const [group] = grouped((await jobs(2 * MOST_TAKES)).jobs);
    if (!group || this._store.opened !== opened) return false;
    this._open(group);
    return true;
  }

  async _load() {
    const page = await jobs(PAGE, this._before);
    this._jobs.push(...page.jobs);
    this._before = page.before;
    this._draw();
  }

  _draw() {
    this._more.hidden = this._before === null;
    byId("history-empty").hidden = this._jobs.length > 0;
    rebuild(this._list, () => grouped(this._jobs).map((group) => this._entry(group)));
  }

  /** @param {Job[]} group */
  _entry(group) {
    const [job] = group;
    const shot = ofJob(job);
    const frames = framesOf(shot.keys);
    const name = shot.name || shot.prompts[0] || "Shot without a name";
    const shown = [frames[0], frames[frames.length - 1]].map((frame) =>
      make("img", { src: pictureAddress(shot.keys[frame].picture), alt: "", loading: "lazy" }),
    );
    const states = [...new Set(group.map((one) => one.state))].join(", ");
    const takes = group.length === 1 ? "1 take" : `${group.length} takes`;
    const when = new Date(1000 * job.created).toLocaleString();
    const text = `${frames.length} keys, ${takes}, ${states}; ${when}`;
    const open = make("button", {
      type: "button",
      class: "primary",
      "data-id": `open-${job.id}`,
      "aria-label": `Open ${name}`,
      text: "Open",
      onclick: () => this._open(group),
    });
    const remove = make("button", {
      type: "button",
      "data-id": `forget-${job.id}`,
      "aria-label": `Remove ${name} with its frames`,
      text: "Remove",
      onclick: told(() => this._remove(group, name)),
    });
    const words = make("div", { class: "words" }, make("strong", { text: name }), make("span", { text }));
    const pictures = make("div", { class: "pair" }, ...shown);
    return make("li", { "data-job": job.id }, pictures, words, make("div", { class: "actions" }, open, remove));
  }

  /** @param {Job[]} group */
  _open(group) {
    const takes = [...group].reverse().slice(-2 * MOST_TAKES);
    const shot = { ...ofJob(takes[0]), takes: Math.min(MOST_TAKES, takes.length) };
    this._store.open(shot, takes);
    this._store.look({ mode: "clip" });
    this._dialog.close();
    say(`${shot.name || "The shot"} is open: change it and draw it again. Undo brings back the one before.`);
  }

  /**
   * @param {Job[]} group
   * @param {string} name
   */
  async _remove(group, name) {
    const going = group.filter(isOpen).length;
    const question = going ? `${going} takes of it are still being drawn. ` : "";
    if (!window.confirm(`${question}Remove ${name} with all its frames from the server?`)) return;
    for (const job of group) {
      await removeJob(job.id);
      this._jobs = this._jobs.filter((one) => one !== job);
    }
    this._store.forgetTakes(group.map((job) => job.id));
    this._draw();
    if (!this._jobs.length) this._dialog.querySelector(".close").focus();
  }
}
