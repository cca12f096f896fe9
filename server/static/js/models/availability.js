// Availability of models: the badge tone of each value, and the order of models.

export const AVAILABILITY_TONES = { available: 'ok', unavailable: 'bad', not_deployed: 'idle', in_progress: 'busy' };

const rank = (model) => (model.availability === 'available' ? 0 : 1);

/** Available models first, then by name. */
export const sortModels = (models) =>
  [...models].sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
