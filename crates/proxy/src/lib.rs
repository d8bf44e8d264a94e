//! The roads: service addresses to pods.
