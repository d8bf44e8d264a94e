//! The voice: commands a person types.
