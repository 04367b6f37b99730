/** Keys of the keyboard; they do nothing while something is written. */

const WRITES = "input:not([type=radio], [type=checkbox], [type=range]), textarea, select";
const PRESSES = "button, summary, a, input, [role=slider]";

/**
 * @typedef {{key: string, words: string, action: () => void, control?: boolean, shift?: boolean, repeats?: boolean}}
 *   Shortcut `key` is as the browser names it, in lower case; one that `repeats` acts again while it is held down.
 */

/**
 * Listens to the keyboard.
 * @param {Shortcut[]} shortcuts
 * @param {() => boolean} hasLetters Whether letters and signs alone are shortcuts: who speaks to a computer may not want them.
 */
export function listen(shortcuts, hasLetters) {
  document.addEventListener("keydown", (event) => {
    const target = event.target instanceof Element ? event.target : document.body;
    const control = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    const found = shortcuts.find(
      (one) => one.key === key && (one.control ?? false) === control && (one.shift ?? event.shiftKey) === event.shiftKey,
    );
    if (!found || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (key.length === 1 && key !== " " && !control && !hasLetters()) return;
    const isSubmit = control && key === "enter";
    if (target.closest(WRITES) && !isSubmit) return;
    if ((key === " " || key === "enter") && !control && target.closest(PRESSES) && !target.closest("[role=slider]")) return;
    if (key.startsWith("arrow") && target.closest("input")) return; // it moves among choices there
    event.preventDefault();
    if (!event.repeat || found.repeats) found.action();
  });
}
