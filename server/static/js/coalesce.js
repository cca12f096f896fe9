// Coalesces calls of an asynchronous function: calls during a run cause one more run after it, however many they are.

/** `run()` is asynchronous and must not throw. */
export function coalesce(run) {
  let isPending = false;
  let isRunning = false;
  return async () => {
    isPending = true;
    if (isRunning) return;
    isRunning = true;
    while (isPending) {
      isPending = false;
      await run();
    }
    isRunning = false;
  };
}
