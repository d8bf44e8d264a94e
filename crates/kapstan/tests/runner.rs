//! Tests of the whole: the real binary, driven by real kubectl and by raw requests.
//!
//! One test binary, so that it links once; every test starts its own server on a free port with a fresh data folder, and
//! they run side by side. A test that lacks a tool or a right says `skipped: why` and passes.

// In tests a failed assumption is a failed test.
#![allow(clippy::unwrap_used)]

mod ages;
mod bad_input;
mod cli_equal;
mod cluster;
mod containers;
mod crash;
mod demo;
mod extensions;
mod fourth_seed;
mod identity;
mod jobs;
mod metering;
mod names;
mod raw;
mod reads;
mod real_workloads;
mod rolling_update;
mod rollouts;
mod start;
mod streams;
mod transcript;
#[cfg(feature = "upstream")]
mod upstream;
mod volumes;
mod web;
mod workloads;
mod writes;
