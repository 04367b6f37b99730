/** Puts the page together. */

import { description, door, isCompiling, models } from "./api.js";
import { byId, calm, complain, make, remember, remembered, say, told } from "./dom.js";
import { Export } from "./export.js";
import { History } from "./history.js";
import { Inspector } from "./inspector.js";
import { takeFiles } from "./intake.js";
import { Options } from "./options.js";
import { Frames, Player } from "./player.js";
import { emptyShot, framesOf } from "./shot.js";
import { listen } from "./shortcuts.js";
import { SketchLayers } from "./sketching.js";
import { Stage } from "./stage.js";
import { Store } from "./store.js";
import { Takes } from "./takes.js";
import { Timeline } from "./timeline.js";

const store = new Store();
const frames = new Frames(() => store.tell(), complain);
const layers = new SketchLayers(() => store.tell());
const player = new Player(store);
const stage = new Stage(store, frames, layers);
const timeline = new Timeline(store);
const inspector = new Inspector(store, timeline);
const takes = new Takes(store, frames, layers);
const options = new Options(store);
const exporting = new Export(store);
const history = new History(store);

// ----------------------------------------------------------------------------------------------------------- controls

/**
 * A choice among radio buttons, as the view has it.
 * @param {string} name
 * @param {"mode" | "tool"} field
 */
function choose(name, field) {
  for (const input of document.querySelectorAll(`input[name="${name}"]`)) {
    input.addEventListener("change", () => store.look({ [field]: /** @type {HTMLInputElement} */ (input).value }));
  }
}

/** @param {-1 | 1} way */
function toKey(way) {
  const { frame } = store.view;
  const keys = framesOf(store.shot.keys);
  const next = way > 0 ? keys.find((one) => one > frame) : keys.filter((one) => one < frame).pop();
  if (next !== undefined) step(next);
}

/** @param {number} frame */
function step(frame) {
  store.look({ playing: false });
  store.seek(frame);
}

const undo = () => say(store.undo() ? "Undone." : "There is nothing to undo.");
const redo = () => say(store.redo() ? "Redone." : "There is nothing to redo.");
const draw = told(() => {
  const written = document.activeElement; // by Ctrl + Enter, which leaves it unfinished
  if (written?.matches("textarea, input:not([type=file])")) written.dispatchEvent(new Event("change"));
  options.check();
  return takes.request();
});
const addPrompt = () => {
  const { frame } = store.view;
  const { prompts } = store.shot;
  if (prompts[frame] === undefined) store.change({ ...store.shot, prompts: { ...prompts, [frame]: "" } });
  store.look({ selected: { kind: "prompts", frame } });
  const write = () => /** @type {HTMLElement | null} */ (document.querySelector('[data-id="text"]'))?.focus();
  requestAnimationFrame(() => requestAnimationFrame(write)); // once it is there
};
const newShot = () => {
  store.open(emptyShot(), []);
  say("A new shot. Undo brings back the one before.");
};

/** @type {Record<string, () => void>} */
const BUTTONS = {
  undo,
  redo,
  "new-shot": newShot,
  "open-history": told(() => history.show()),
  "open-help": () => byId("help").showModal(),
  "close-problem": calm,
  "to-first": () => step(store.played.first),
  "to-before": () => step(store.view.frame - 1),
  play: () => player.toggle(),
  "to-after": () => step(store.view.frame + 1),
  "to-last": () => step(store.played.last),
  "zoom-out": () => stage.zoomBy(1 / 1.25),
  "zoom-fit": () => stage.fit(),
  "zoom-in": () => stage.zoomBy(1.25),
  "add-prompt": addPrompt,
  export: told(() => exporting.save()),
};

/** @type {import("./shortcuts.js").Shortcut[]} */
const SHORTCUTS = [
  { key: " ", words: "play, stop", action: () => player.toggle() },
  { key: "arrowleft", words: "one frame back", repeats: true, shift: false, action: () => step(store.view.frame - 1) },
  { key: "arrowright", words: "one frame on", repeats: true, shift: false, action: () => step(store.view.frame + 1) },
  { key: "arrowleft", words: "to the key before", shift: true, action: () => toKey(-1) },
  { key: "arrowright", words: "to the next key", shift: true, action: () => toKey(1) },
  { key: "home", words: "to the first frame", action: () => step(store.played.first) },
  { key: "end", words: "to the last frame", action: () => step(store.played.last) },
  { key: "z", words: "undo", control: true, repeats: true, shift: false, action: undo },
  { key: "z", words: "redo", control: true, repeats: true, shift: true, action: redo },
  { key: "y", words: "redo", control: true, repeats: true, action: redo },
  { key: "enter", words: "draw the shot", control: true, action: draw },
  { key: "b", words: "brush", action: () => store.look({ tool: "brush" }) },
  { key: "e", words: "eraser", action: () => store.look({ tool: "eraser" }) },
  { key: "h", words: "hand", action: () => store.look({ tool: "hand" }) },
  { key: "o", words: "onion skin", action: () => store.look({ onion: !store.view.onion }) },
  { key: "t", words: "show the drawn frame below", action: () => store.look({ traced: !store.view.traced }) },
  { key: "c", words: "edit, or look at the clip", action: toggleMode },
  { key: "+", words: "zoom in", repeats: true, action: () => stage.zoomBy(1.25) },
  { key: "-", words: "zoom out", repeats: true, action: () => stage.zoomBy(1 / 1.25) },
  { key: "0", words: "the whole frame", action: () => stage.fit() },
  { key: "delete", words: "remove what is selected", action: () => timeline.removeSelected() },
  { key: "escape", words: "select nothing", action: () => store.look({ selected: null }) },
  { key: "?", words: "this list", action: () => byId("help").showModal() },
];

function toggleMode() {
  store.look({ mode: store.view.mode === "edit" && store.take ? "clip" : "edit" });
}

function listHelp() {
  const marks = { arrowleft: "←", arrowright: "→", " ": "Space" };
  byId("help-list").replaceChildren(
    ...SHORTCUTS.flatMap(({ key, words, control, shift }) => {
      const name = marks[/** @type {" "} */ (key)] ?? key[0].toUpperCase() + key.slice(1);
      const keys = [control ? "Ctrl" : "", shift ? "Shift" : "", name].filter(Boolean).join(" + ");
      return [make("dt", {}, make("kbd", { text: keys })), make("dd", { text: words })];
    }),
  );
}

function useControls() {
  for (const [id, action] of Object.entries(BUTTONS)) byId(id).addEventListener("click", action);
  choose("mode", "mode");
  choose("tool", "tool");
  byId("onion").addEventListener("change", () => store.look({ onion: byId("onion").checked }));
  byId("traced").addEventListener("change", () => store.look({ traced: byId("traced").checked }));
  byId("loops").addEventListener("change", () => store.look({ loops: byId("loops").checked }));
  byId("size").addEventListener("input", () => store.look({ size: Number(byId("size").value) }));
  byId("rate").addEventListener("change", () => {
    if (byId("rate").reportValidity()) store.look({ fps: Number(byId("rate").value) });
  });
  byId("name").addEventListener("change", () => store.change({ ...store.shot, name: byId("name").value.trim() }));
  byId("model").addEventListener("change", () => store.change({ ...store.shot, model: byId("model").value }));
  byId("count").addEventListener("change", () => store.change({ ...store.shot, takes: Number(byId("count").value) }));
  byId("prompt").addEventListener("change", () => {
    const { 0: _, ...prompts } = store.shot.prompts;
    const text = byId("prompt").value.trim();
    store.change({ ...store.shot, prompts: text ? { ...prompts, 0: text } : prompts });
  });
  byId("shot").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    draw();
  });
  for (const close of document.querySelectorAll("dialog .close")) {
    close.addEventListener("click", () => close.closest("dialog")?.close());
  }
  const letters = byId("letters");
  letters.checked = remembered("letters") ?? true;
  letters.addEventListener("change", () => remember("letters", letters.checked));
  listen(SHORTCUTS, () => letters.checked);
  listHelp();
}

function useTheme() {
  const theme = byId("theme");
  const apply = () => {
    document.documentElement.dataset.theme = theme.value;
    stage.draw();
  };
  theme.value = remembered("theme") ?? "system";
  theme.addEventListener("change", () => {
    remember("theme", theme.value);
    apply();
  });
  apply();
}

// ------------------------------------------------------------------------------------------------------ what is shown

/** Shows the state of the controls that are written in the page itself. */
function drawControls() {
  const { shot, view, take } = store;
  byId("undo").disabled = !store.canUndo;
  byId("redo").disabled = !store.canRedo;
  for (const field of /** @type {const} */ (["mode", "tool"])) {
    /** @type {NodeListOf<HTMLInputElement>} */
    const inputs = document.querySelectorAll(`input[name="${field}"]`);
    for (const input of inputs) input.checked = input.value === view[field];
  }
  byId("mode-clip").disabled = !take;
  byId("onion").checked = view.onion;
  byId("traced").checked = view.traced;
  byId("traced").disabled = take?.state !== "done";
  byId("loops").checked = view.loops;
  byId("play").setAttribute("aria-pressed", String(view.playing));
  byId("play-text").textContent = view.playing ? "Stop" : "Play";
  const { first, last } = store.played;
  byId("where").textContent = `frame ${view.frame} of ${first} to ${last}`;
  for (const [id, value] of [
    ["name", shot.name],
    ["model", shot.model || (store.models[0]?.name ?? "")],
    ["count", shot.takes],
    ["prompt", shot.prompts[0] ?? ""],
    ["rate", view.fps],
  ]) {
    const input = byId(/** @type {string} */ (id));
    if (input !== document.activeElement) input.value = value;
  }
}

store.listen(() => {
  drawControls();
  timeline.draw();
  inspector.draw();
  takes.draw();
  options.draw();
  exporting.draw();
  stage.draw();
});

/** Asks for the server's token in a dialog. */
door.askToken = (problem) =>
  new Promise((resolve) => {
    const dialog = byId("door");
    byId("door-problem").textContent = problem;
    byId("door-problem").hidden = !problem;
    const ended = () => {
      const token = byId("token").value.trim();
      byId("token").value = "";
      resolve(dialog.returnValue === "open" && token ? token : null);
    };
    dialog.addEventListener("close", ended, { once: true });
    dialog.showModal();
  });

/** Whoever opens the page for the first time, and has a shot nevertheless, was given an example: it is shown, and plays. */
async function showExample() {
  if (!store.isNew || !(await history.openNewest())) return;
  if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  let hasPlayed = false;
  store.listen(() => {
    if (hasPlayed || store.take?.state !== "done") return;
    hasPlayed = true;
    if (!store.view.playing) player.toggle();
  });
  store.tell();
}

async function begin() {
  useControls();
  useTheme();
  takeFiles(store, timeline);
  store.tell();
  const document_ = await description();
  for (const one of [options, inspector, exporting]) one.describe(document_);
  store.models = await models();
  byId("model").replaceChildren(...store.models.map(({ name }) => make("option", { value: name, text: name })));
  byId("model-field").hidden = store.models.length < 2;
  await takes.restore();
  await showExample();
  if (await isCompiling()) say("The server prepares its devices: the first shot takes longer.");
  document.body.dataset.ready = "yes";
  store.tell();
}

told(begin)();
