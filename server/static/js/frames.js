// What is to be drawn, drawn once per animation frame, however often it was asked for.

const waiting = new Set();
let asked = false;

/** Calls `draw` before the next frame; asking again before that changes nothing. */
export function onNextFrame(draw) {
  waiting.add(draw);
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const now = [...waiting];
    waiting.clear();
    for (const one of now) one();
  });
}
