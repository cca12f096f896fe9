// The HTTP side of the API: JSON in, JSON out, and one kind of error that carries the server's own sentence.

import { askForKey, currentKey, keyHeaders } from './key.js';

export class ApiError extends Error {
  constructor(message, { code = 'offline', status = 0, requestId = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { code, status, requestId, retryAfter });
  }
}

export const get = (path) => call('GET', path);

export const post = (path, body, headers = {}) => call('POST', path, { body, headers });

export const remove = (path) => call('DELETE', path);

/** The body of an answer that is not JSON, as a Blob. */
export const download = async (path, type) => (await answerOf('GET', path, { headers: { Accept: type } })).blob();

/** The status of an answer, without asking for a key; 0 where there is none within a few seconds. */
export async function statusOf(path) {
  try {
    return (await fetch(path, { headers: keyHeaders(), signal: AbortSignal.timeout(5000) })).status;
  } catch {
    return 0;
  }
}

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
    return await fetch(path, { method, headers: { ...json, ...headers, ...keyHeaders() }, body: body && JSON.stringify(body) });
  } catch {
    throw new ApiError('The server can\'t be reached.');
  }
}

async function errorOf(answer) {
  try {
    const told = await answer.json();
    return new ApiError(told.error, { code: told.code, status: answer.status, requestId: told.request_id, retryAfter: told.retry_after });
  } catch {
    return new ApiError(`The server answered with status ${answer.status}.`, { code: 'unknown', status: answer.status });
  }
}
