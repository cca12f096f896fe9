// The card of a model: provider, capabilities, availability, deployment, limits, and a plot of recent answers.

import { h, replaceChildren, setText } from '../dom.js';
import { formatBytes, formatCount, formatPixels, humanize } from '../format.js';
import { badge, descriptionList, setBadge } from '../ui.js';
import { AVAILABILITY_TONES } from './availability.js';
import { latencyPlot } from './latency_plot.js';

const STATE_TONES = { closed: 'ok', half_open: 'warn', open: 'bad' };
const STATE_LABELS = { half_open: 'Half open: one call tries it', open: 'Open: not asked for a while' };
/** The fields of every model, and those of a message of the feed. All others are what stages and its provider say. */
const COMMON_FIELDS = new Set([
  'name', 'provider', 'model', 'capabilities', 'limits', 'availability', 'reason', 'recent',
  'type', 'id', 'feed', 'seq',
]);
const DEPLOYMENT_TONES = { deployed: 'ok', in_progress: 'busy', failed: 'bad', deleting: 'warn' };

/** A card for KeyedList. `update({model, deployment})`. */
export function modelCard({ model }) {
  const id = `model-${model.name}`;
  const state = badge('idle', '');
  const upstream = h('p', { class: 'dim small clip mono' });
  const capabilities = h('ul', { class: 'chips', 'aria-label': 'Capabilities' });
  const reason = h('p', { class: 'reason small' });
  const plot = h('div', { class: 'plot-box' });
  const details = h('div', {});
  const element = h('article', { class: 'card model-card', 'aria-labelledby': id },
    h('header', {}, h('h3', { id, class: 'clip' }, model.name), state), upstream, capabilities, plot, details, reason);
  let rendered = '';
  return {
    element,
    update(entry) {
      const json = JSON.stringify(entry);
      if (json === rendered) return;
      rendered = json;
      render(entry, { state, upstream, capabilities, reason, plot, details });
    },
  };
}

function render({ model, deployment }, parts) {
  setBadge(parts.state, AVAILABILITY_TONES[model.availability] ?? 'idle', humanize(model.availability));
  setText(parts.upstream, `${model.provider} · ${model.model}`);
  parts.upstream.title = model.model;
  const enabled = Object.entries(model.capabilities ?? {}).filter(([, isEnabled]) => isEnabled);
  replaceChildren(parts.capabilities, enabled.map(([name]) => h('li', {}, name)));
  parts.reason.hidden = !model.reason;
  setText(parts.reason, model.reason ?? '');
  replaceChildren(parts.plot, latencyPlot(model.recent));
  const entries = [...describedEntries(model), ...deploymentEntries(deployment), ...limitEntries(model)];
  replaceChildren(parts.details, descriptionList(entries));
}

function describedEntries(model) {
  const described = Object.entries(model).filter(([name]) => !COMMON_FIELDS.has(name));
  return described.map(([name, value]) => [humanize(name), describedValue(value)]);
}

function describedValue(value) {
  if (typeof value !== 'string') return JSON.stringify(value);
  return badge(STATE_TONES[value] ?? 'idle', STATE_LABELS[value] ?? humanize(value));
}

function deploymentEntries(deployment) {
  if (!deployment) return [];
  return [
    ['Deployment', badge(DEPLOYMENT_TONES[deployment.status] ?? 'idle', humanize(deployment.status))],
    ['Stack', deployment.stack],
    ['Instance', [deployment.instance, deployment.engine].filter(Boolean).join(', ')],
    ['Endpoint', deployment.endpoint],
  ];
}

function limitEntries({ limits, capabilities }) {
  if (!limits) return [];
  const takesPictures = capabilities?.image || capabilities?.video;
  return [
    ['Tokens', `at most ${formatCount(limits.max_tokens)}`],
    ['Temperature', `up to ${limits.temperature}`],
    ['Pictures', takesPictures && limits.frames > 0 ? pictureLimits(limits) : null],
    ['Video', capabilities?.video ? `up to ${formatBytes(limits.video_bytes)} as it came` : null],
  ];
}

const pictureLimits = ({ frames, frame_bytes: size, frame_pixels: area }) =>
  `${frames} of ${formatBytes(size)}, ${formatPixels(area)}`;
