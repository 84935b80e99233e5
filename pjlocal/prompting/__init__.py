"""The prompt of each view: preferences, and the model's chat template."""
