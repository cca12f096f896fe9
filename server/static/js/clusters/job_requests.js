// Job requests: deploy, destroy, cancel. Each submission has its own idempotency key, so that it creates one job.

import { post } from '../api.js';

const PATHS = { deploy: '/api/hyperpod/deploy', destroy: '/api/hyperpod/destroy' };

/** The new job. Throws ApiError. */
export async function submitJob(action, { preset, overrides, dryRun, confirm }) {
  const body = { preset, overrides, dry_run: dryRun, ...(confirm && { confirm }) };
  const response = await post(PATHS[action], body, { 'Idempotency-Key': randomKey() });
  return response.job;
}

export async function cancelJob(jobId) {
  return (await post(`/api/hyperpod/jobs/${encodeURIComponent(jobId)}/cancel`, {})).job;
}

/** The overrides of a request or a job as entries of a description list. */
export const overrideEntries = (overrides) =>
  Object.entries(overrides ?? {}).map(([name, value]) => [name, String(value)]);

export const jobHref = (job) => `#/clusters/jobs/${job.job_id}`;

// crypto.randomUUID exists only in a secure context, which a server in a private network may not be.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
