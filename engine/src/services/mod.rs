//! Services that exist to be replicated.
