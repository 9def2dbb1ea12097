// Long work in slices, so that the page stays alive.

const SLICE = 12; // milliseconds of work between two frames

/** Runs a generator in slices between frames; undefined if it was given up because `stale()`. */
async function runInSlices(work, stale) {
  for (;;) {
    const until = performance.now() + SLICE;
    let step;
    do step = work.next();
    while (!step.done && performance.now() < until);
    if (step.done) return step.value;
    await new Promise((resume) => setTimeout(resume));
    if (stale()) return undefined;
  }
}
