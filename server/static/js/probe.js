// The status of an answer alone: whether a key is let in, and whether the server is there.

const PATIENCE_MS = 5000;

/** 0 where no answer comes within a few seconds. */
export async function statusOf(path, key = '') {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  try {
    return (await fetch(path, { headers, signal: AbortSignal.timeout(PATIENCE_MS) })).status;
  } catch {
    return 0;
  }
}

/** The status with which an address that wants a key, and costs nothing, answers to this one. */
export const statusOfKey = (key) => statusOf('/api/emd/models', key);
