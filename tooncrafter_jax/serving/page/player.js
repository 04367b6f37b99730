/** Plays takes: their frames come as an archive of PNG files, exact and in any order. */

import { isFinal, result } from "./api.js";
import { LONGEST, RETRY } from "./pictures.js";
import { firstFrame } from "./store.js";

/** Pixels of frames that are kept decoded, and how many frames are kept however large they are. */
const [MOST_PIXELS, LEAST_DECODED] = [2 ** 26, 32];
const [ENTRY, END] = [0x02014b50, 0x06054b50];

/**
 * The files of a zip archive whose entries are stored as they are, by their places in it.
 * @param {Blob} archive
 * @returns {Promise<Blob[]>}
 */
export async function stored(archive) {
  const view = new DataView(await archive.arrayBuffer());
  let end = view.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== END) end -= 1;
  if (end < 0) throw new Error("the frames did not come whole: try again");
  const found = [];
  let at = view.getUint32(end + 16, true);
  for (let number = view.getUint16(end + 10, true); number > 0; number -= 1) {
    if (view.getUint32(at, true) !== ENTRY) throw new Error("the frames cannot be read");
    const [size, start] = [view.getUint32(at + 20, true), view.getUint32(at + 42, true)];
    const data = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
    found.push(archive.slice(data, data + size, "image/png"));
    at += 46 + view.getUint16(at + 28, true) + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return found;
}

/** Frames of takes that are done. */
export class Frames {
  /**
   * @param {() => void} onLoad Is told when a frame can be shown that could not before.
   * @param {(problem: unknown) => void} onProblem
   */
  constructor(onLoad, onProblem) {
    this._onLoad = onLoad;
    this._onProblem = onProblem;
    /** @type {Map<string, Blob[] | null>} */
    this._files = new Map();
    /** @type {Map<string, ImageBitmap | null>} */
    this._decoded = new Map();
    /** @type {Map<string, number>} How often something did not come. */
    this._failed = new Map();
    /** @type {Map<string, symbol>} Of what is on its way, which attempt it is. */
    this._attempts = new Map();
  }

  /**
   * Drops the frames of all other takes.
   * @param {string[]} ids
   */
  keep(ids) {
    for (const id of this._files.keys()) if (!ids.includes(id)) this._forget(this._files, id);
    for (const name of this._decoded.keys()) if (!ids.includes(name.split(" ")[0])) this._drop(name);
  }

  /** @param {string} name Of a decoded frame. */
  _drop(name) {
    this._decoded.get(name)?.close();
    this._forget(this._decoded, name);
  }

  /**
   * @param {Map<string, any>} entries
   * @param {string} name
   */
  _forget(entries, name) {
    entries.delete(name);
    this._attempts.delete(name);
  }

  /**
   * Says that something is on its way.
   * @param {Map<string, any>} entries
   * @param {string} name
   * @returns {() => boolean} whether it is still wanted, and no later attempt was begun.
   */
  _begin(entries, name) {
    const attempt = Symbol(name);
    entries.set(name, null);
    this._attempts.set(name, attempt);
    return () => this._attempts.get(name) === attempt;
  }

  /**
   * Says what went wrong, once, and tries again, unless the server refuses it: after two seconds, and ever later.
   * @param {Map<string, any>} entries
   * @param {string} name
   * @param {unknown} error
   * @param {() => boolean} isCurrent Of `_begin`.
   */
  _fail(entries, name, error, isCurrent) {
    if (!isCurrent()) return;
    const tries = this._failed.get(name) ?? 0;
    if (!tries) this._onProblem(error);
    this._failed.set(name, tries + 1);
    if (isFinal(error)) return;
    const again = () => {
      if (!isCurrent()) return;
      this._forget(entries, name);
      this._onLoad();
    };
    setTimeout(again, Math.min(LONGEST, RETRY * 2 ** tries));
  }

  /**
   * A frame of a take, or null until it is there; the one before the first is the first, and so at the end.
   * @param {import("./api.js").Job} job
   * @param {number} frame As the shot counts.
   * @returns {ImageBitmap | null}
   */
  frame(job, frame) {
    if (job.state !== "done") return null;
    const files = this._files.get(job.id);
    if (!files) {
      if (files === undefined) this._fetch(job.id);
      return null;
    }
    const number = Math.max(0, Math.min(files.length - 1, frame - firstFrame(job)));
    if (number + 1 < files.length) this._bitmap(job.id, number + 1, files[number + 1]);
    return this._bitmap(job.id, number, files[number]);
  }

  /** @param {string} id */
  async _fetch(id) {
    const isCurrent = this._begin(this._files, id);
    let files;
    try {
      files = await stored((await result(id, "png")).data);
    } catch (error) {
      this._fail(this._files, id, error, isCurrent);
      return;
    }
    if (!isCurrent()) return;
    this._files.set(id, files);
    this._attempts.delete(id);
    this._failed.delete(id);
    this._onLoad();
  }

  /**
   * @param {string} id
   * @param {number} number
   * @param {Blob} file
   */
  _bitmap(id, number, file) {
    const name = `${id} ${number}`;
    const found = this._decoded.get(name);
    if (found !== undefined) {
      this._decoded.delete(name); // the one that was asked for last is dropped last
      this._decoded.set(name, found);
      return found;
    }
    const isCurrent = this._begin(this._decoded, name);
    createImageBitmap(file).then(
      (bitmap) => {
        if (!isCurrent()) return bitmap.close();
        this._decoded.set(name, bitmap);
        this._attempts.delete(name);
        this._bound();
        this._onLoad();
      },
      (error) => this._fail(this._decoded, name, error, isCurrent),
    );
    return null;
  }

  /** Drops frames that were not asked for lately, where there are more than may be kept. */
  _bound() {
    let pixels = 0;
    for (const bitmap of this._decoded.values()) pixels += bitmap ? bitmap.width * bitmap.height : 0;
    for (const [name, bitmap] of this._decoded) {
      if (pixels <= MOST_PIXELS || this._decoded.size <= LEAST_DECODED) return;
      pixels -= bitmap ? bitmap.width * bitmap.height : 0;
      this._drop(name);
    }
  }
}

/** Moves the playhead while the shot plays. */
export class Player {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this._store = store;
    this._due = 0;
  }

  /** Plays, or stops. */
  toggle() {
    const { view, take } = this._store;
    if (view.playing) {
      this._store.look({ playing: false });
      return;
    }
    if (take?.state === "done") view.mode = "clip";
    const { first, last } = this._store.played;
    if (last <= first) return;
    if (view.frame >= last || view.frame < first) this._store.seek(first);
    this._store.look({ playing: true });
    this._due = performance.now() + 1000 / view.fps;
    requestAnimationFrame((now) => this._tick(now));
  }

  /** @param {number} now */
  _tick(now) {
    const { view } = this._store;
    if (!view.playing) return;
    const { first, last } = this._store.played;
    const each = 1000 / view.fps;
    if (now >= this._due) {
      const steps = Math.min(last - first, 1 + Math.floor((now - this._due) / each));
      this._due += each * steps;
      if (this._due < now) this._due = now + each;
      const next = view.frame + steps;
      if (next <= last) this._store.seek(next);
      else if (view.loops) this._store.seek(first + ((next - last - 1) % (last - first + 1)));
      else {
        this._store.seek(last);
        this._store.look({ playing: false });
        return;
      }
    }
    requestAnimationFrame((later) => this._tick(later));
  }
}
