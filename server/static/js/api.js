// The HTTP client of the API: JSON requests and responses, and one error class that has the server's message.

import { currentKey, keyHeaders, promptForKey } from './api_key.js';

class ApiError extends Error {
  constructor(message, { code = 'offline', status = 0, requestId = null } = {}) {
    super(message);
    Object.assign(this, { code, status, requestId });
  }
}

export const get = (path) => request('GET', path);

export const post = (path, body, headers = {}) => request('POST', path, { body, headers });

export const del = (path) => request('DELETE', path);

/** The body of a response that is not JSON, as a Blob. */
export const download = async (path, type) => (await fetchOk('GET', path, { headers: { Accept: type } })).blob();

async function request(method, path, options) {
  const response = await fetchOk(method, path, options);
  return response.status === 204 ? null : response.json();
}

/** A response with a status below 300. On 401, prompts for a key and repeats the request. Throws ApiError. */
async function fetchOk(method, path, { body, headers = {} } = {}) {
  for (;;) {
    const key = currentKey();
    const response = await send(method, path, body, headers);
    if (response.ok) return response;
    if (response.status !== 401 || !(await promptForKey(key))) throw await parseError(response);
  }
}

async function send(method, path, body, headers) {
  const json = body === undefined ? {} : { 'Content-Type': 'application/json' };
  try {
    const allHeaders = { ...json, ...headers, ...keyHeaders() };
    return await fetch(path, { method, headers: allHeaders, body: body && JSON.stringify(body) });
  } catch {
    throw new ApiError('The server can\'t be reached.');
  }
}

async function parseError(response) {
  const { status } = response;
  try {
    const { error, code, request_id: requestId } = await response.json();
    return new ApiError(error, { code, status, requestId });
  } catch {
    return new ApiError(`The server answered with status ${status}.`, { code: 'unknown', status });
  }
}
