// HTTP status probes: whether the server accepts an API key, and whether the server is reachable.

const TIMEOUT_MS = 5000;

/** The status of GET `path`; 0 where no response comes within TIMEOUT_MS. */
export async function fetchStatus(path, key = '') {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  try {
    return (await fetch(path, { headers, signal: AbortSignal.timeout(TIMEOUT_MS) })).status;
  } catch {
    return 0;
  }
}

/** The status for this key at an address that requires a key and costs nothing. */
export const fetchKeyStatus = (key) => fetchStatus('/api/emd/models', key);
