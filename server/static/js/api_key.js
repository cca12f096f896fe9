// The API key: prompted for when the server requires one, stored for this tab only, and never put into a URL.

import { h, setText } from './dom.js';
import { fetchKeyStatus } from './probe.js';
import { openDialog } from './ui.js';

const STORAGE_KEY = 'forgeline.key';

let pendingPrompt = null;

export const currentKey = () => sessionStorage.getItem(STORAGE_KEY) ?? '';

/** The Authorization header with the key; no header without a key. */
export const keyHeaders = () => (currentKey() ? { Authorization: `Bearer ${currentKey()}` } : {});

/** The subprotocols to offer to a WebSocket: a browser can't set headers there, so the key is a subprotocol. */
export function keyProtocols() {
  return currentKey() ? [`forgeline.key.${base64url(currentKey())}`] : [];
}

/**
 * Prompts for a key until the server accepts one. `rejected` is the key that the server has rejected: if another key
 * is stored by now, there is no prompt. Resolves to whether a key is stored. Concurrent callers share one dialog.
 */
export async function promptForKey(rejected) {
  if (currentKey() !== rejected) return true;
  pendingPrompt ??= openPrompt().finally(() => {
    pendingPrompt = null;
  });
  return pendingPrompt;
}

function openPrompt() {
  return new Promise((resolve) => {
    const input = h('input', { type: 'password', id: 'key', autocomplete: 'off', required: true, spellcheck: 'false' });
    const problem = h('p', { class: 'problem', role: 'alert' });
    if (currentKey()) setText(problem, 'The key of this tab is not let in any more.');
    let accepted = false;
    const submit = async (event) => {
      event.preventDefault();
      setText(problem, '');
      const key = input.value.trim();
      const status = await fetchKeyStatus(key);
      if (status === 401) setText(problem, 'This key is not let in.');
      else if (status === 0) setText(problem, 'The server can\'t be reached.');
      else {
        sessionStorage.setItem(STORAGE_KEY, key);
        accepted = true;
        dialog.close();
      }
      input.select();
    };
    const form = h('form', { id: 'key-form', class: 'stack', on: { submit } },
      h('p', {}, 'This server lets in who has a key. It is kept for this tab, and forgotten with it.'),
      h('label', { for: 'key' }, 'Key'), input, problem);
    const dialog = openDialog('API key', {
      body: form,
      actions: [h('button', { type: 'submit', form: 'key-form', class: 'primary' }, h('span', {}, 'Enter'))],
      onClose: () => resolve(accepted),
    });
    input.focus();
  });
}

function base64url(text) {
  const binary = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('');
  return btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}
