/** Hears what becomes of jobs, of all on one connection: browsers have six, and pictures need some. */

import { isOpen, job, Refused } from "./api.js";

/** @typedef {import("./api.js").Job} Job */

/** Milliseconds after which a server that refused to tell is asked. */
const LATER = 5000;

/** Follows jobs until they end. While somebody does, previews are made. */
export class Following {
  /**
   * @param {(job: Job) => void} onJob
   * @param {(id: string) => void} onRemoved
   */
  constructor(onJob, onRemoved) {
    this._onJob = onJob;
    this._onRemoved = onRemoved;
    /** @type {Set<string>} */
    this._ids = new Set();
    /** @type {EventSource | null} */
    this._source = null;
    this._timer = 0;
  }

  /** @param {string[]} ids Of all jobs that are to be followed, and no others. */
  follow(ids) {
    if (ids.length === this._ids.size && ids.every((id) => this._ids.has(id))) return;
    this._close();
    this._ids = new Set(ids);
    this._open();
  }

  _close() {
    this._source?.close();
    this._source = null;
    clearTimeout(this._timer);
  }

  _open() {
    if (!this._ids.size) return;
    const source = new EventSource(`/v1/events?${[...this._ids].map((id) => `id=${id}`).join("&")}`);
    this._source = source;
    source.addEventListener("job", (event) => this._heard(JSON.parse(event.data)));
    source.addEventListener("removed", (event) => this._gone(JSON.parse(event.data).id));
    source.addEventListener("error", () => {
      // a lost connection is made again by the browser, one that was refused is not
      if (source.readyState === EventSource.CLOSED) this._timer = setTimeout(() => this._ask(source), LATER);
    });
  }

  /**
   * Asks for each job, and follows them again: the request may have got a new key, or waited as long as the server wanted.
   * @param {EventSource} source That was refused.
   */
  async _ask(source) {
    for (const id of [...this._ids]) {
      try {
        this._heard(await job(id));
      } catch (error) {
        if (error instanceof Refused && error.status === 404) this._gone(id);
      }
    }
    if (this._source === source) this._open();
  }

  /** @param {Job} job */
  _heard(job) {
    if (!isOpen(job)) this._end(job.id);
    this._onJob(job);
  }

  /** @param {string} id */
  _gone(id) {
    this._end(id);
    this._onRemoved(id);
  }

  /** @param {string} id */
  _end(id) {
    this._ids.delete(id);
    if (!this._ids.size) this._close();
  }
}
