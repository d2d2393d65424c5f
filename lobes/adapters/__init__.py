"""Parameter-efficient tuning of encoders, and what it makes them forget."""
