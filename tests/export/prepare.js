/* Runs pixels.js, named first, on the images that come as JSON, and answers with what it makes of them. */
const { prepare } = require(require("path").resolve(process.argv[2]));
const cases = JSON.parse(require("fs").readFileSync(0));
const bytes = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
const answers = cases.map(({ height, width, data, input }) => {
  const { pixels, values } = prepare({ height, width, data: Buffer.from(data, "base64") }, input);
  return { pixels: bytes(pixels), values: bytes(values) };
});
console.log(JSON.stringify(answers));
