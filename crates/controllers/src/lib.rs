//! The decisions: one file or folder per controller.
