/* The page: unpacks the model and its runtime, reads photos, and shows what the model sees in them. */
"use strict";

const SHOWN = 5;
const input = JSON.parse(byId("description").textContent);
const state = (name) => (document.documentElement.dataset.state = name);

function byId(id) {
  return document.getElementById(id);
}

/* The bytes of a file that the page holds: gzip, then base64. Its text is dropped afterwards. */
async function unpacked(id) {
  const text = atob(byId(id).textContent);
  byId(id).remove();
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function start() {
  const url = URL.createObjectURL(new Blob([await unpacked("runtime-script")], { type: "text/javascript" }));
  const ort = await import(url);
  ort.env.wasm.numThreads = 1; // more need headers that a file on a disk has not
  ort.env.wasm.wasmBinary = (await unpacked("runtime-code")).buffer;
  const session = await ort.InferenceSession.create(await unpacked("model"), { executionProviders: ["wasm"] });
  const run = async (values) => {
    const images = new ort.Tensor("float32", values, [1, 3, ...input.size]);
    return (await session.run({ images })).logits.data;
  };
  await run(new Float32Array(3 * input.size[0] * input.size[1])); // the first run prepares the next ones
  return run;
}

/* An image file as a browser shows it: upright, its transparent parts on white; colors are not converted. */
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/* What the model says of an image file: {pixels, logits, probabilities, preparation, inference}; times in ms. */
async function recognize(file) {
  const run = await running;
  const begin = performance.now();
  const { pixels, values } = prepare(await pixelsOf(file), input);
  const prepared = performance.now();
  const logits = Array.from(await run(values));
  const inference = performance.now() - prepared;
  return { pixels, logits, probabilities: softmax(logits), preparation: prepared - begin, inference };
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function show(found) {
  const order = found.probabilities.map((_, index) => index).sort((a, b) => found.probabilities[b] - found.probabilities[a]);
  byId("classes").replaceChildren(...order.slice(0, SHOWN).map((index) => row(index, found.probabilities[index])));
  const milliseconds = (time) => (time < 10 ? time.toFixed(1) : time.toFixed(0));
  say(`${milliseconds(found.inference)} ms for the model, ${milliseconds(found.preparation)} ms to read and resize the photo`);
}

function row(index, probability) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const share = document.createElement("output");
  const bar = document.createElement("div");
  name.textContent = input.classes[index];
  share.textContent = `${(100 * probability).toFixed(1)} %`;
  bar.className = "bar";
  bar.style.setProperty("--share", probability);
  item.append(name, share, bar);
  return item;
}

function say(text) {
  byId("status").textContent = text;
}

let asked = 0;

async function look(file) {
  if (!file) return;
  const number = ++asked; // a later photo takes the place of one that still runs
  state("working");
  say("Looking …");
  byId("classes").replaceChildren();
  const photo = byId("photo");
  URL.revokeObjectURL(photo.src);
  photo.src = URL.createObjectURL(file);
  photo.hidden = false;
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  try {
    const found = await recognize(file);
    if (number !== asked) return;
    show(found);
    state("done");
  } catch (error) {
    if (number !== asked) return;
    photo.hidden = true;
    say(error.name === "InvalidStateError" ? `${file.name} is no image that this browser can read.` : `It failed: ${error.message}`);
    state("failed");
  }
}

function listen() {
  const drop = byId("drop");
  const chosen = byId("file");
  chosen.addEventListener("change", () => look(chosen.files[0]));
  for (const kind of ["dragover", "drop", "dragleave"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") look(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("paste", (event) => look(event.clipboardData.files[0]));
}

state("loading");
const running = start();
globalThis.sequencer2d = { recognize };
listen();
running.then(
  () => {
    if (asked) return;
    state("ready");
    say("");
  },
  (error) => {
    state("failed");
    say(`The model does not start in this browser: ${error.message}`);
  },
);
