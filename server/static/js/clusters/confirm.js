// Asking before what can't be undone: a live deploy, a cancel, and a destroy, which wants the stack's name typed.

import { get } from '../api.js';
import { h, setText } from '../dom.js';
import { button, facts, openDialog } from '../ui.js';
import { cancel, overrideFacts, submit } from './orders.js';

/** Asks, then does `act()`; its error is shown where it was asked. `typed`: what has to be typed before. */
function ask(title, { body, label, act, typed = null, others = [] }) {
  const problem = h('p', { class: 'problem', role: 'alert' });
  const run = async (what, one) => {
    one.disabled = true;
    setText(problem, '');
    try {
      await what();
      dialog.close();
    } catch (error) {
      setText(problem, error.message);
      one.disabled = false;
    }
  };
  const go = button(label, () => run(act, go), { kind: 'danger', disabled: typed !== null });
  const back = button('Back', () => dialog.close(), { kind: 'quiet' });
  const more = others.map(([name, what]) => button(name, (event) => run(what, event.currentTarget)));
  const field = typed && typedField(typed, (isRight) => {
    go.disabled = !isRight;
  });
  const dialog = openDialog(title, { body: [body, field, problem], actions: [back, ...more, go] });
}

/** A field that tells, as it is typed, whether it holds this text. */
function typedField(text, onChange) {
  const input = h('input', { id: 'confirm', type: 'text', autocomplete: 'off', spellcheck: 'false' });
  input.addEventListener('input', () => onChange(input.value === text));
  const label = h('label', { for: 'confirm' }, 'Type ', h('strong', { class: 'mono' }, text), ' to confirm');
  return h('div', { class: 'field' }, label, input);
}

export function confirmDeploy(order, stackName, onJob) {
  ask('Deploy for real?', {
    body: [
      h('p', {}, 'This makes resources in your account, which cost money until they are destroyed.'),
      orderFacts(order, stackName),
    ],
    label: 'Deploy',
    act: async () => onJob(await submit('deploy', { ...order, dryRun: false })),
  });
}

/** A stack is named by its preset and the overrides that it was deployed with: the job that made it tells them. */
export async function confirmDestroy(stack, onJob) {
  const order = { preset: stack.preset, overrides: await overridesOf(stack) };
  ask('Destroy this stack?', {
    body: [
      h('p', {}, 'Everything that it made goes, with what is stored on it. This can\'t be undone.'),
      orderFacts(order, stack.stack_name, stack.region),
    ],
    typed: stack.stack_name,
    label: 'Destroy',
    act: async () => onJob(await submit('destroy', { ...order, dryRun: false, confirm: stack.stack_name })),
    others: [['Dry run', async () => onJob(await submit('destroy', { ...order, dryRun: true }))]],
  });
}

async function overridesOf(stack) {
  try {
    return (await get(`/api/hyperpod/jobs/${encodeURIComponent(stack.job_id)}`)).job.overrides;
  } catch {
    return {}; // the job is not kept any more; the server refuses a destroy whose name is not the stack's
  }
}

export function confirmCancel(job) {
  ask('Cancel this job?', {
    body: h('p', {}, job.dry_run
      ? 'The dry run ends here.'
      : 'Its processes end. What AWS has begun may go on: the stack is left as it then stands.'),
    label: 'Cancel the job',
    act: () => cancel(job.job_id),
  });
}

function orderFacts({ preset, overrides }, stackName, region) {
  return facts([['Preset', preset], ['Stack', stackName], ['Region', region], ...overrideFacts(overrides)]);
}
