// The theme switch: system, light or dark. Loaded first, so that a stored theme does not flash.

import { replaceChildren, setAttribute } from './dom.js';
import { icon } from './icons.js';

const STORAGE_KEY = 'forgeline.theme';
const THEMES = ['system', 'light', 'dark'];
const ICONS = { system: 'system', light: 'sun', dark: 'moon' };

const nextTheme = (theme) => THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];

let theme = THEMES.includes(localStorage.getItem(STORAGE_KEY)) ? localStorage.getItem(STORAGE_KEY) : 'system';
const button = document.getElementById('theme');

function render() {
  setAttribute(document.documentElement, 'data-theme', theme === 'system' ? null : theme);
  const label = `Theme: ${theme}. Switch to ${nextTheme(theme)}.`;
  setAttribute(button, 'aria-label', label);
  setAttribute(button, 'title', label);
  replaceChildren(button, icon(ICONS[theme]));
}

button.addEventListener('click', () => {
  theme = nextTheme(theme);
  localStorage.setItem(STORAGE_KEY, theme);
  render();
});
render();
