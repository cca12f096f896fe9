// The HTTP side of the API: JSON in, JSON out, and one kind of error that carries the server's own sentence.

import { askForKey, currentKey, keyHeaders } from './key.js';

class ApiError extends Error {
  constructor(message, { code = 'offline', status = 0, requestId = null } = {}) {
    super(message);
    Object.assign(this, { code, status, requestId });
  }
}

export const get = (path) => call('GET', path);

export const post = (path, body, headers = {}) => call('POST', path, { body, headers });

export const remove = (path) => call('DELETE', path);

/** The body of an answer that is not JSON, as a Blob. */
export const download = async (path, type) => (await answerOf('GET', path, { headers: { Accept: type } })).blob();

async function call(method, path, options) {
  const answer = await answerOf(method, path, options);
  return answer.status === 204 ? null : answer.json();
}

/** The answer, once it is a good one. Where a key is wanted, asks for it and asks again. Throws ApiError. */
async function answerOf(method, path, { body, headers = {} } = {}) {
  for (;;) {
    const key = currentKey();
    const answer = await ask(method, path, body, headers);
    if (answer.ok) return answer;
    if (answer.status !== 401 || !(await askForKey(key))) throw await errorOf(answer);
  }
}

async function ask(method, path, body, headers) {
  const json = body === undefined ? {} : { 'Content-Type': 'application/json' };
  try {
    const all = { ...json, ...headers, ...keyHeaders() };
    return await fetch(path, { method, headers: all, body: body && JSON.stringify(body) });
  } catch {
    throw new ApiError('The server can\'t be reached.');
  }
}

async function errorOf(answer) {
  const { status } = answer;
  try {
    const { error, code, request_id: requestId } = await answer.json();
    return new ApiError(error, { code, status, requestId });
  } catch {
    return new ApiError(`The server answered with status ${status}.`, { code: 'unknown', status });
  }
}
