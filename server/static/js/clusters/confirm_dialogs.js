// Confirmation dialogs: a live deploy, a cancel, and a destroy, which requires the stack's name.

import { get } from '../api.js';
import { h, setText } from '../dom.js';
import { button, descriptionList, openDialog } from '../ui.js';
import { cancelJob, overrideEntries, submitJob } from './job_requests.js';

/**
 * Opens a dialog that runs `action()` on confirmation and shows its error. `confirmText`: a text that the user must
 * type first. `extraActions`: [[label, action]], further buttons.
 */
function openConfirmDialog(title, { body, label, action, confirmText = null, extraActions = [] }) {
  const problem = h('p', { class: 'problem', role: 'alert' });
  const run = async (chosenAction, clickedButton) => {
    clickedButton.disabled = true;
    setText(problem, '');
    try {
      await chosenAction();
      dialog.close();
    } catch (error) {
      setText(problem, error.message);
      clickedButton.disabled = false;
    }
  };
  const confirm = button(label, () => run(action, confirm), { variant: 'danger', disabled: confirmText !== null });
  const back = button('Back', () => dialog.close(), { variant: 'quiet' });
  const extraButtons = extraActions.map(([extraLabel, extraAction]) =>
    button(extraLabel, (event) => run(extraAction, event.currentTarget)));
  const field = confirmText && confirmField(confirmText, (isMatch) => {
    confirm.disabled = !isMatch;
  });
  const dialog = openDialog(title, { body: [body, field, problem], actions: [back, ...extraButtons, confirm] });
}

/** A text field that reports on each input whether its value is `text`. */
function confirmField(text, onChange) {
  const input = h('input', { id: 'confirm', type: 'text', autocomplete: 'off', spellcheck: 'false' });
  input.addEventListener('input', () => onChange(input.value === text));
  const label = h('label', { for: 'confirm' }, 'Type ', h('strong', { class: 'mono' }, text), ' to confirm');
  return h('div', { class: 'field' }, label, input);
}

export function confirmDeploy(request, stackName, onJob) {
  openConfirmDialog('Deploy for real?', {
    body: [
      h('p', {}, 'This makes resources in your account, which cost money until they are destroyed.'),
      requestSummary(request, stackName),
    ],
    label: 'Deploy',
    action: async () => onJob(await submitJob('deploy', { ...request, dryRun: false })),
  });
}

/** A stack is named by its preset and the overrides of its deploy, so the overrides come from the job that made it. */
export async function confirmDestroy(stack, onJob) {
  const request = { preset: stack.preset, overrides: await fetchOverrides(stack) };
  const destroy = { ...request, dryRun: false, confirm: stack.stack_name };
  openConfirmDialog('Destroy this stack?', {
    body: [
      h('p', {}, 'Everything that it made goes, with what is stored on it. This can\'t be undone.'),
      requestSummary(request, stack.stack_name, stack.region),
    ],
    confirmText: stack.stack_name,
    label: 'Destroy',
    action: async () => onJob(await submitJob('destroy', destroy)),
    extraActions: [['Dry run', async () => onJob(await submitJob('destroy', { ...request, dryRun: true }))]],
  });
}

async function fetchOverrides(stack) {
  try {
    return (await get(`/api/hyperpod/jobs/${encodeURIComponent(stack.job_id)}`)).job.overrides;
  } catch {
    return {}; // the job is deleted already; the server rejects a destroy whose `confirm` is another stack's name
  }
}

export function confirmCancel(job) {
  openConfirmDialog('Cancel this job?', {
    body: h('p', {}, job.dry_run
      ? 'The dry run ends here.'
      : 'Its processes end. What AWS has begun may go on: the stack is left as it then stands.'),
    label: 'Cancel the job',
    action: () => cancelJob(job.job_id),
  });
}

function requestSummary({ preset, overrides }, stackName, region) {
  return descriptionList([['Preset', preset], ['Stack', stackName], ['Region', region], ...overrideEntries(overrides)]);
}
