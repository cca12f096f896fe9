// How models are told apart at a glance: the colour of their availability, and their order.

export const TONES = { available: 'ok', unavailable: 'bad', not_deployed: 'idle', in_progress: 'busy' };

const rank = (model) => (model.availability === 'available' ? 0 : 1);

/** Those that can answer first, then by name. */
export const inOrder = (models) =>
  [...models].sort((one, other) => rank(one) - rank(other) || one.name.localeCompare(other.name));
