"""ValidatorRules: read, compiled, kept current, and applied to events."""
