//! Worlds and plans as text, for tests.
