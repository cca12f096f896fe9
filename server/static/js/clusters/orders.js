// What a person orders: a deploy, a destroy, a cancel. Each order has a key of its own, so that none is made twice.

import { post } from '../api.js';

const PLACES = { deploy: '/api/hyperpod/deploy', destroy: '/api/hyperpod/destroy' };

/** The new job. Throws ApiError. */
export async function submit(action, { preset, overrides, dryRun, confirm }) {
  const body = { preset, overrides, dry_run: dryRun, ...(confirm && { confirm }) };
  const told = await post(PLACES[action], body, { 'Idempotency-Key': newKey() });
  return told.job;
}

export async function cancel(jobId) {
  return (await post(`/api/hyperpod/jobs/${encodeURIComponent(jobId)}/cancel`, {})).job;
}

/** The overrides of an order or a job as entries of a list of facts. */
export const overrideFacts = (overrides) =>
  Object.entries(overrides ?? {}).map(([name, value]) => [name, String(value)]);

export const addressOf = (job) => `#/clusters/jobs/${job.job_id}`;

// crypto.randomUUID is there only in a secure context, which a server in one's own network may not be.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
