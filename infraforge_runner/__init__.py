"""Deploy jobs and watched files. Of ours it imports the pipeline's event log, errors and presets, and nothing else."""
