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

/**
 * Rebuilds the children of an element; what had the focus has it again, if it is there under the same `data-id`, and with it
 * what was just being written there.
 * @param {HTMLElement} parent
 * @param {() => Node[]} build
 * @param {string} [focused] `data-id` that gets the focus instead.
 */
export function rebuild(parent, build, focused) {
  const active = document.activeElement;
  const before = active instanceof HTMLElement && parent.contains(active) ? active.dataset.id : undefined;
  const isWritten = active instanceof HTMLInputElement && active.value !== active.defaultValue;
  parent.replaceChildren(...build());
  const id = focused ?? before;
  const found = id ? parent.querySelector(`[data-id="${CSS.escape(id)}"]`) : null;
  if (!(found instanceof HTMLElement)) return;
  found.focus();
  if (isWritten && id === before && found instanceof HTMLInputElement && found.type !== "file") found.value = active.value;
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
