// The completions as columns of numbers; the tokens of row i are at start[i] .. start[i + 1].

const NO_TURN = -(2 ** 31); // of a token whose row has no turns, as in credit/lens/payload.py
const SOURCES = ["run", "step", "estimator"]; // what tells where a row comes from
const KINDS = { u4: Uint32Array, i4: Int32Array, f4: Float32Array, u1: Uint8Array };

async function readSamples() {
  const about = JSON.parse(document.getElementById("about").textContent);
  const element = document.getElementById("numbers");
  const packed = fromBase64(element.textContent.trim());
  element.remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const total = about.start.at(-1);
  const samples = { ...about, count: about.start.length - 1, total };
  let offset = 0;
  for (const [name, kind] of about.fields) {
    samples[name] = new KINDS[kind](buffer, offset, total);
    offset += total * KINDS[kind].BYTES_PER_ELEMENT;
  }
  return samples;
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

/** Positions, in the columns, of the row's tokens that the policy chose. */
function chosenTokens(samples, row) {
  const chosen = [];
  if (!samples.valid[row]) return chosen;
  for (let t = samples.start[row]; t < samples.start[row + 1]; t++) if (samples.mask[t]) chosen.push(t);
  return chosen;
}
