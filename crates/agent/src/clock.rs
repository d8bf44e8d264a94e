//! Time on a node: starts at the wall clock, then runs with the monotonic one.
//!
//! A step of the wall clock must not fire back-offs, deadlines or probes (a clock stepping back once made the kubelet
//! create one container twice, kubernetes#134153), so every `now` that a decision gets comes from here.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// A clock that never goes backwards. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Timestamp,
    start: Instant,
}

impl Clock {
    /// Reads the wall clock once.
    pub fn start() -> Clock {
        Clock { wall: Timestamp::now(), start: Instant::now() }
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.start.elapsed()).unwrap_or(SignedDuration::MAX);
        self.wall.saturating_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// How long from now until `time`; zero when it has passed.
    pub fn until(&self, time: Timestamp) -> std::time::Duration {
        time.duration_since(self.now()).try_into().unwrap_or_default()
    }
}
