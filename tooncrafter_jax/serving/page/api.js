/** The server's API; docs/serving.md describes it. */

import { complain, remember, remembered } from "./dom.js";

/**
 * @typedef {"waiting" | "running" | "done" | "failed" | "cancelled"} JobState
 * @typedef {{id: string, number: number, kind: string, state: JobState, created: number, finished: number | null,
 *   progress: {done: number, total: number}, previews: number, error: string, notes: string[], shape: number[],
 *   seconds: number, pictures: Record<string, string>, request: Record<string, any>}} Job
 * @typedef {{name: string, height: number, width: number, has_sketches: boolean, sampling: Record<string, any>}} Model
 */

const TRIES = 6;
const FORGOTTEN = "The server does not know this browser any more, and gave it a new key: shots from before are not listed.";
const WITHOUT_KEY = new Set(["/v1/session", "/v1/health", "/v1/openapi.json"]);

/** What the server refused, in its own sentence. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} sentence
   */
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** Asks the user for the server's token, and says what is wrong with the one before; null: none was given. The page sets it. */
export const door = {
  /** @type {(problem: string) => Promise<string | null>} */
  askToken: async () => null,
};

/** @type {Promise<boolean> | null} */
let opening = null;

/**
 * Gets a key, which the browser keeps as a cookie.
 * @returns {Promise<boolean>} whether it is another one than before.
 */
function openSession() {
  opening ??= (async () => {
    /** @type {Record<string, string>} */
    let headers = {};
    for (;;) {
      const answer = await fetch("/v1/session", { method: "POST", headers });
      if (answer.ok) {
        remember("session", true);
        return (await answer.json()).is_new;
      }
      if (answer.status !== 401) throw await refusal(answer);
      const token = await door.askToken(headers.Authorization ? "That is not the token." : "");
      if (!token) throw new Refused(401, "this server needs its token");
      headers = { Authorization: `Bearer ${token}` };
    }
  })().finally(() => {
    opening = null;
  });
  return opening;
}

/**
 * @param {Response} answer
 * @returns {Promise<Refused>}
 */
async function refusal(answer) {
  let sentence = `the server answered ${answer.status}`;
  try {
    sentence = (await answer.json()).detail ?? sentence;
  } catch {
    // no JSON: the number must do
  }
  return new Refused(answer.status, sentence);
}

/**
 * A request; gets a key where there is none, and waits where the server is busy.
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
async function ask(path, init = {}) {
  if (!WITHOUT_KEY.has(path) && !remembered("session")) await openSession();
  for (let tries = 1; ; tries += 1) {
    let answer;
    try {
      answer = await fetch(path, init);
    } catch {
      throw new Refused(0, "the server does not answer: is it running?");
    }
    if (answer.ok) return answer;
    if (answer.status === 401 && tries === 1) {
      const isNew = await openSession();
      if (isNew) complain(FORGOTTEN);
    } else if (answer.status === 429 && tries < TRIES) {
      const seconds = Number(answer.headers.get("Retry-After") ?? 1);
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    } else {
      throw await refusal(answer);
    }
  }
}

/**
 * Whether the server refused something for good, so that to ask again is of no use.
 * @param {unknown} error
 */
export function isFinal(error) {
  return error instanceof Refused && error.status >= 400 && error.status < 500 && ![408, 429].includes(error.status);
}

/**
 * Why the server refuses an address for good; null: it does not.
 * @param {string} address
 * @returns {Promise<unknown>}
 */
export async function finalRefusal(address) {
  try {
    await (await ask(address)).blob(); // the browser keeps it
  } catch (error) {
    if (isFinal(error)) return error;
  }
  return null;
}

/**
 * The models of the server; the first counts where none is named.
 * @returns {Promise<Model[]>}
 */
export const models = async () => (await (await ask("/v1/models")).json()).models;

/**
 * The OpenAPI description, which has the help and the range of every option.
 * @returns {Promise<any>}
 */
export const description = async () => (await ask("/v1/openapi.json")).json();

/**
 * Whether the server still prepares its devices.
 * @returns {Promise<boolean>}
 */
export const isCompiling = async () => (await (await ask("/v1/health")).json()).devices === "compiling";

/**
 * Sends a picture; gives its checksum.
 * @param {Blob} file
 * @param {string} name
 * @returns {Promise<string>}
 */
export async function sendPicture(file, name) {
  const body = new FormData();
  body.set("picture", file, name);
  return (await (await ask("/v1/pictures", { method: "POST", body })).json()).sha256;
}

/**
 * What a time sheet shows.
 * @param {File} file
 * @returns {Promise<{layers: {name: string, drawings: {frame: number, drawing: string | null}[]}[], notes: string[]}>}
 */
export async function readSheet(file) {
  const headers = { "Content-Type": "application/octet-stream" };
  return (await ask("/v1/timesheets", { method: "POST", headers, body: file })).json();
}

/**
 * Asks for a shot.
 * @param {Record<string, any>} request
 * @returns {Promise<Job>}
 */
export async function submit(request) {
  const headers = { "Content-Type": "application/json" };
  return (await ask("/v1/jobs", { method: "POST", headers, body: JSON.stringify(request) })).json();
}

/**
 * One's jobs, the newest first.
 * @param {number} [most]
 * @param {number | null} [before]
 * @returns {Promise<{jobs: Job[], before: number | null}>}
 */
export async function jobs(most = 50, before = null) {
  return (await ask(`/v1/jobs?most=${most}${before === null ? "" : `&before=${before}`}`)).json();
}

/**
 * @param {string} id
 * @returns {Promise<Job>}
 */
export const job = async (id) => (await ask(`/v1/jobs/${id}`)).json();

/**
 * Cancels a job that is still to be made.
 * @param {string} id
 * @returns {Promise<Job>}
 */
export const cancel = async (id) => (await ask(`/v1/jobs/${id}/cancel`, { method: "POST" })).json();

/**
 * Removes a job with its frames.
 * @param {string} id
 */
export async function removeJob(id) {
  await ask(`/v1/jobs/${id}`, { method: "DELETE" });
}

/**
 * The frames of a job in a format, and what the file is called.
 * @param {string} id
 * @param {string} form
 * @param {number} [fps] playback rate.
 * @returns {Promise<{data: Blob, name: string}>}
 */
export async function result(id, form, fps) {
  const answer = await ask(`/v1/jobs/${id}/result/${form}${fps ? `?playback_fps=${fps}` : ""}`);
  const named = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "");
  return { data: await answer.blob(), name: named ? named[1] : form };
}

/** @param {string} sha256 */
export const pictureAddress = (sha256) => `/v1/pictures/${sha256}`;

/** @param {Job} job */
export const previewAddress = (job) => `/v1/jobs/${job.id}/preview?number=${job.previews}`;

/** @param {Job} job */
export const isOpen = (job) => job.state === "waiting" || job.state === "running";
