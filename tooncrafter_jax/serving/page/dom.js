/** Elements, and what the page says to those who look and to those who listen. */

/**
 * Makes an element.
 * @param {string} tag
 * @param {Record<string, any>} [properties] `class`, `text`, `data-*`, `aria-*` and other attributes; `onclick` and its
 *   like are listeners; false and null leave an attribute out.
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/**
 * An element of the page by its id.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element '${id}'`);
  return found;
}

/**
 * Says something in one sentence: shown at the bottom, and read out.
 * @param {string} sentence
 */
export function say(sentence) {
  byId("status").textContent = sentence;
}

/**
 * Says what went wrong; it stays until it is closed or something else goes wrong.
 * @param {unknown} problem
 */
export function complain(problem) {
  const sentence = problem instanceof Error ? problem.message : String(problem);
  byId("problem-text").textContent = sentence;
  byId("problem").hidden = false;
}

/** Takes away what went wrong before. */
export function calm() {
  byId("problem").hidden = true;
  byId("problem-text").textContent = "";
}

/**
 * A listener whose failure is told to the user.
 * @template {any[]} A
 * @param {(...values: A) => any} action
 * @returns {(...values: A) => Promise<void>}
 */
export function told(action) {
  return async (...values) => {
    try {
      await action(...values);
    } catch (error) {
      complain(error);
    }
  };
}

/** @type {Node | null} Where a pointer is down. */
let pressed = null;
/** @type {Map<HTMLElement, () => void>} Parents that are rebuilt once it is up. */
const waiting = new Map();

function release() {
  pressed = null;
  const all = [...waiting.values()];
  waiting.clear();
  for (const rebuildNow of all) rebuildNow();
}

document.addEventListener(
  "pointerdown",
  (event) => {
    release();
    pressed = /** @type {Node} */ (event.target);
  },
  true,
);
for (const name of ["pointerup", "pointercancel"]) {
  document.addEventListener(name, () => setTimeout(release), true); // after the click
}
window.addEventListener("blur", release);

/**
 * Rebuilds the children of an element; what had the focus has it again, if it is there under the same `data-id`, and with it
 * what was just being written there; else what is in its place. While a pointer is down on one of the children nothing is
 * rebuilt: its click would be lost.
 * @param {HTMLElement} parent
 * @param {() => Node[]} build
 * @param {string} [focused] `data-id` that gets the focus instead.
 */
export function rebuild(parent, build, focused) {
  if (pressed && pressed !== parent && parent.contains(pressed)) {
    waiting.set(parent, () => rebuild(parent, build, focused));
    return;
  }
  waiting.delete(parent);
  const active = document.activeElement;
  const before = active instanceof HTMLElement && parent.contains(active) ? active.dataset.id : undefined;
  const place = named(parent).findIndex((one) => one === active);
  replace(parent, build());
  const id = focused ?? before;
  if (id === undefined) return;
  const now = named(parent);
  const found = now.find((one) => one.dataset.id === id);
  const next = focused === undefined ? now[Math.min(place, now.length - 1)] : undefined;
  (found ?? next)?.focus();
  if (active instanceof HTMLInputElement && found instanceof HTMLInputElement && id === before) goOn(active, found);
}

/**
 * Replaces children, of which one may have the focus: that it goes is no end of what is written there.
 * @param {HTMLElement} parent
 * @param {Node[]} children
 */
function replace(parent, children) {
  const still = (/** @type {Event} */ event) => event.stopImmediatePropagation();
  for (const name of ["change", "blur"]) parent.addEventListener(name, still, true);
  parent.replaceChildren(...children);
  for (const name of ["change", "blur"]) parent.removeEventListener(name, still, true);
}

/**
 * @param {HTMLElement} parent
 * @returns {HTMLElement[]}
 */
const named = (parent) => [...parent.querySelectorAll("[data-id]")].map((one) => /** @type {HTMLElement} */ (one));

/**
 * Lets a field go on with what was being written in the one before.
 * @param {HTMLInputElement} before
 * @param {HTMLInputElement} now
 */
function goOn(before, now) {
  if (before.type === "file" || before.value === before.defaultValue) return;
  now.value = before.value;
  if (before.selectionStart !== null) now.setSelectionRange(before.selectionStart, before.selectionEnd);
  let isTold = false;
  now.addEventListener("change", () => (isTold = true), { once: true });
  // browsers do not tell of a change that a script has begun
  const tell = () => isTold || now.dispatchEvent(new Event("change"));
  now.addEventListener("blur", tell, { once: true });
  now.addEventListener("keydown", ({ key }) => key === "Enter" && tell());
}

/**
 * A value that this window remembers, or else this browser; nothing where they may not remember.
 * @param {string} name
 * @returns {any}
 */
export function remembered(name) {
  try {
    const key = `tooncrafter.${name}`;
    return JSON.parse(sessionStorage.getItem(key) ?? localStorage.getItem(key) ?? "null");
  } catch {
    return null;
  }
}

/**
 * Remembers a value in this window, so that another one does not overwrite it, and in this browser.
 * @param {string} name
 * @param {any} value
 * @returns {boolean} whether it is there after the page was closed.
 */
export function remember(name, value) {
  const [key, text] = [`tooncrafter.${name}`, JSON.stringify(value)];
  try {
    sessionStorage.removeItem(key); // an old value would hide the new one where there is no room for it
    sessionStorage.setItem(key, text);
  } catch {
    // the browser's must do
  }
  try {
    localStorage.setItem(key, text);
    return true;
  } catch {
    return false;
  }
}
