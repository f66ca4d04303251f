//! Operations, each a plan that can be shown, then run.
