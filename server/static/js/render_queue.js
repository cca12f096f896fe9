// The render queue: each render function runs at most once per animation frame, however often it is scheduled.

const queue = new Set();
let isFrameRequested = false;

/** Calls `render` before the next frame. Scheduling the same function again before that has no effect. */
export function scheduleRender(render) {
  queue.add(render);
  if (isFrameRequested) return;
  isFrameRequested = true;
  requestAnimationFrame(() => {
    isFrameRequested = false;
    const batch = [...queue];
    queue.clear();
    for (const renderQueued of batch) renderQueued();
  });
}
