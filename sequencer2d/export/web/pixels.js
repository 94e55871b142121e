/* From an image's pixels to what the model takes, with the arithmetic of sequencer2d/data/eval_transforms.py.

Resampling is Pillow's: two passes of fixed-point sums, each rounded to 8 bits. A size is [height, width] in pixels; an
image is {height, width, data}, four bytes a pixel (red, green, blue, and one that is not read).
*/
"use strict";

const PRECISION_BITS = 22;

const FILTERS = {
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: (x) => cubic(Math.abs(x)) },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

function cubic(x) {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/* The input of the model: {pixels: bytes red, green, blue, row by row; values: Float32Array, channel by channel}.

`input` has size, mean, std, interpolation, crop_pct and crop_mode ("center", "squash" or "border").
*/
function prepare(image, input) {
  const [height, width] = input.size;
  const mode = input.crop_mode || "center";
  const scaled = input.size.map((side) => Math.floor(side / input.crop_pct));
  const fill = mode === "border" ? input.mean.map((value) => roundToEven(255 * value)) : [0, 0, 0];
  if (mode === "border") image = noThinnerThanAPixel(image, scaled);
  const resized = resizedSize([image.height, image.width], scaled, mode);
  const part = resizedPart(image, resized, middle(resized[0], height), middle(resized[1], width), input.interpolation);
  const pixels = new Uint8Array(height * width * 3);
  for (let i = 0; i < pixels.length; i++) pixels[i] = fill[i % 3];
  for (let y = 0; y < part.height; y++) {
    for (let x = 0; x < part.width; x++) {
      const to = ((y + part.top) * width + x + part.left) * 3;
      const from = (y * part.width + x) * 4;
      for (let channel = 0; channel < 3; channel++) pixels[to + channel] = part.data[from + channel];
    }
  }
  return { pixels, values: normalized(pixels, input) };
}

function normalized(pixels, { mean, std }) {
  const count = pixels.length / 3;
  const values = new Float32Array(pixels.length);
  for (let i = 0; i < count; i++) {
    for (let channel = 0; channel < 3; channel++) {
      values[channel * count + i] = (pixels[3 * i + channel] / 255 - mean[channel]) / std[channel];
    }
  }
  return values;
}

/* The size of the whole resized image, of which the crop is the middle. */
function resizedSize(size, scaled, mode) {
  if (mode === "squash") return scaled;
  const ratios = size.map((side, axis) => side / scaled[axis]);
  if (mode === "border") return size.map((side) => roundToEven(side / Math.max(...ratios)));
  if (scaled[0] !== scaled[1]) return size.map((side) => roundToEven(side / Math.min(...ratios)));
  const long = Math.floor((scaled[0] * Math.max(...size)) / Math.min(...size));
  return size[0] <= size[1] ? [scaled[0], long] : [long, scaled[0]];
}

/* Widens a strip of which the resize to fit into `scaled`, sides in proportion, would leave nothing. */
function noThinnerThanAPixel(image, scaled) {
  const shrink = Math.max(image.height / scaled[0], image.width / scaled[1]);
  if (Math.min(image.height, image.width) >= shrink) return image;
  const size = [image.height, image.width].map((side) => Math.max(1, roundToEven(side / shrink)));
  const all = size.map((side) => ({ begin: 0, end: side, at: 0 }));
  return resizedPart(image, size, all[0], all[1], "box");
}

/* Which of `side` pixels the middle `crop` takes, from begin to end, and at which pixel of the crop they are put. */
function middle(side, crop) {
  if (crop > side) return { begin: 0, end: side, at: Math.floor((crop - side) / 2) };
  const begin = roundToEven((side - crop) / 2);
  return { begin, end: begin + crop, at: 0 };
}

/* The `rows` and `columns` of the image resized to `size`. Only what they need is computed. */
function resizedPart(image, size, rows, columns, interpolation) {
  const place = { top: rows.at, left: columns.at };
  if (interpolation === "nearest") return { ...nearest(image, size, rows, columns), ...place };
  const filter = FILTERS[interpolation];
  const down = weights(image.height, size[0], rows, filter);
  const across = weights(image.width, size[1], columns, filter);
  // As in Pillow 13, which resizes columns first where that leaves far fewer pixels to the other pass.
  const lost = image.height - size[0];
  const columnsFirst = lost > 0 && lost > 2 * (image.width - size[1]);
  const part = columnsFirst
    ? resizeRows(resizeColumns(image, down), across)
    : resizeColumns(resizeRows(image, across, down), down);
  return { ...part, ...place };
}

/* Per output pixel of one axis: the first input pixel, and fixed-point weights from there; null: pixels as they are. */
function weights(side, resized, { begin, end }, filter) {
  if (side === resized) return Array.from({ length: end - begin }, (_, i) => ({ first: begin + i, factors: null }));
  const scale = side / resized;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  const found = [];
  for (let out = begin; out < end; out++) {
    const center = (out + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(side, Math.trunc(center + support + 0.5));
    const factors = [];
    for (let x = first; x < last; x++) factors.push(filter.weight((x - center + 0.5) * (1 / stretch)));
    const sum = factors.reduce((total, factor) => total + factor, 0);
    const fixed = factors.map((factor) => {
      const share = (sum === 0 ? factor : factor / sum) * 2 ** PRECISION_BITS;
      return Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
    found.push({ first, factors: fixed });
  }
  return found;
}

/* Resizes each row; with `needed`, weights of the pass after it, only the rows that they read. */
function resizeRows(image, across, needed) {
  const [begin, end] = needed ? span(needed) : [0, image.height];
  const data = new Uint8ClampedArray(image.height * across.length * 4);
  for (let y = begin; y < end; y++) {
    for (let x = 0; x < across.length; x++) {
      sumUp(image.data, (y * image.width + across[x].first) * 4, 4, across[x].factors, data, (y * across.length + x) * 4);
    }
  }
  return { height: image.height, width: across.length, data };
}

function resizeColumns(image, down) {
  const data = new Uint8ClampedArray(down.length * image.width * 4);
  for (let y = 0; y < down.length; y++) {
    for (let x = 0; x < image.width; x++) {
      const from = (down[y].first * image.width + x) * 4;
      sumUp(image.data, from, 4 * image.width, down[y].factors, data, (y * image.width + x) * 4);
    }
  }
  return { height: down.length, width: image.width, data };
}

function span(needed) {
  const ends = needed.map(({ first, factors }) => first + (factors ? factors.length : 1));
  return [needed.length ? needed[0].first : 0, ends.length ? ends[ends.length - 1] : 0];
}

/* One pixel: the weighted sum of the pixels at from, from + step, …, rounded; Uint8ClampedArray keeps it in 0 … 255. */
function sumUp(data, from, step, factors, target, to) {
  if (factors === null) {
    for (let channel = 0; channel < 3; channel++) target[to + channel] = data[from + channel];
    return;
  }
  let red = 2 ** (PRECISION_BITS - 1);
  let green = red;
  let blue = red;
  for (let i = 0, at = from; i < factors.length; i++, at += step) {
    red += data[at] * factors[i];
    green += data[at + 1] * factors[i];
    blue += data[at + 2] * factors[i];
  }
  target[to] = red >> PRECISION_BITS;
  target[to + 1] = green >> PRECISION_BITS;
  target[to + 2] = blue >> PRECISION_BITS;
}

function nearest(image, size, rows, columns) {
  const height = rows.end - rows.begin;
  const width = columns.end - columns.begin;
  const data = new Uint8ClampedArray(height * width * 4);
  const down = nearestOf(image.height, size[0]);
  const across = nearestOf(image.width, size[1]);
  for (let y = 0; y < height; y++) {
    const fromY = down[rows.begin + y];
    for (let x = 0; x < width; x++) {
      const fromX = across[columns.begin + x];
      for (let channel = 0; channel < 3; channel++) {
        data[(y * width + x) * 4 + channel] = image.data[(fromY * image.width + fromX) * 4 + channel];
      }
    }
  }
  return { height, width, data };
}

/* The input pixel of each output pixel. Positions are added up as in Pillow: where two are as near, rounding decides. */
function nearestOf(side, resized) {
  const scale = side / resized;
  const found = new Int32Array(resized);
  for (let out = 0, at = scale * 0.5; out < resized; out++, at += scale) found[out] = Math.min(side - 1, Math.trunc(at));
  return found;
}

/* As Python rounds: halves go to the even neighbor. */
function roundToEven(value) {
  const down = Math.floor(value);
  const rest = value - down;
  if (rest === 0.5) return down + (down % 2);
  return rest < 0.5 ? down : down + 1;
}

if (typeof module !== "undefined") module.exports = { prepare };
