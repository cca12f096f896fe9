// What is asked for again while it is under way is done once more after it, however often it was asked for.

/** `work()` is asynchronous, and throws nothing. */
export function oneAtATime(work) {
  let isWanted = false;
  let isUnderWay = false;
  return async () => {
    isWanted = true;
    if (isUnderWay) return;
    isUnderWay = true;
    while (isWanted) {
      isWanted = false;
      await work();
    }
    isUnderWay = false;
  };
}
