// One model: who provides it, what it can do, whether it can answer, its limits, and how its last answers went.

import { h, replace, setText } from '../dom.js';
import { bytes, count, pixels, words } from '../format.js';
import { badge, facts, setBadge } from '../ui.js';
import { latencyPlot } from './plot.js';
import { TONES } from './state.js';

const BREAKER_TONES = { closed: 'ok', half_open: 'warn', open: 'bad' };
const BREAKER_WORDS = { half_open: 'Half open: one call tries it', open: 'Open: not asked for a while' };
const DEPLOYMENT_TONES = { deployed: 'ok', in_progress: 'busy', failed: 'bad', deleting: 'warn' };

/** A card for KeyedList. `update({model, deployment})`. */
export function modelCard({ model }) {
  const id = `model-${model.name}`;
  const state = badge('idle', '');
  const upstream = h('p', { class: 'dim small clip mono' });
  const abilities = h('ul', { class: 'chips', 'aria-label': 'Capabilities' });
  const reason = h('p', { class: 'reason small' });
  const plot = h('div', { class: 'plot-box' });
  const details = h('div', {});
  const element = h('article', { class: 'card model-card', 'aria-labelledby': id },
    h('header', {}, h('h3', { id, class: 'clip' }, model.name), state), upstream, abilities, plot, details, reason);
  let shown = '';
  return {
    element,
    update(entry) {
      const now = JSON.stringify(entry);
      if (now === shown) return;
      shown = now;
      draw(entry, { state, upstream, abilities, reason, plot, details });
    },
  };
}

function draw({ model, deployment }, parts) {
  setBadge(parts.state, TONES[model.availability] ?? 'idle', words(model.availability));
  setText(parts.upstream, `${model.provider} · ${model.model}`);
  parts.upstream.title = model.model;
  const able = Object.entries(model.capabilities ?? {}).filter(([, can]) => can);
  replace(parts.abilities, able.map(([name]) => h('li', {}, name)));
  parts.reason.hidden = !model.reason;
  setText(parts.reason, model.reason ?? '');
  replace(parts.plot, latencyPlot(model.recent));
  replace(parts.details, facts([...breakerFacts(model), ...deploymentFacts(deployment), ...limitFacts(model)]));
}

function breakerFacts({ breaker }) {
  const state = breaker ?? 'unknown';
  return [['Breaker', badge(BREAKER_TONES[state] ?? 'idle', BREAKER_WORDS[state] ?? words(state))]];
}

function deploymentFacts(deployment) {
  if (!deployment) return [];
  return [
    ['Deployment', badge(DEPLOYMENT_TONES[deployment.status] ?? 'idle', words(deployment.status))],
    ['Stack', deployment.stack],
    ['Instance', [deployment.instance, deployment.engine].filter(Boolean).join(', ')],
    ['Endpoint', deployment.endpoint],
  ];
}

function limitFacts({ limits, capabilities }) {
  if (!limits) return [];
  const sees = capabilities?.image || capabilities?.video;
  return [
    ['Tokens', `at most ${count(limits.max_tokens)}`],
    ['Temperature', `up to ${limits.temperature}`],
    ['Pictures', sees && limits.frames > 0 ? pictures(limits) : null],
    ['Video', capabilities?.video ? `up to ${bytes(limits.video_bytes)} as it came` : null],
  ];
}

const pictures = ({ frames, frame_bytes: size, frame_pixels: area }) => `${frames} of ${bytes(size)}, ${pixels(area)}`;
