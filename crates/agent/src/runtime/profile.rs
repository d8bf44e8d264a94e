//! How simulated containers behave: image pattern → delays and faults.
//!
//! Pure. A profile is a YAML file; the first entry whose pattern matches an image counts:
//!
//! ```yaml
//! images:
//! - image: "nginx:1.16*"      # `*` stands for any characters
//!   pullTime: 1.5s            # how long a pull takes
//!   startTime: 20ms           # from created to running
//!   timeToReady: 2s           # from running until readiness probes pass
//!   stopTime: 100ms           # how long it takes to stop when asked
//! - image: "*:broken"
//!   unpullable: true          # ErrImagePull, then ImagePullBackOff
//! - image: "*:crash"
//!   crashAfter: 3s            # ends by itself, again and again …
//!   exitCode: 2               # … with this code
//! - image: "batch:*"
//!   runTime: 10s              # ends by itself with exitCode (0)
//! - image: "*:sick"
//!   neverReady: true
//! - image: "busy:*"
//!   cpu: 250m                 # what a running container uses (10m)
//!   memory: 64Mi              # … and holds (24Mi)
//! events: false               # write the kubelet's events
//! drain: false                # wait for proxies before a pod is stopped, as real nodes do
//! ```

use api::quantity::Amount;
use api::usage::Used;
use jiff::SignedDuration;
use serde::Deserialize;

/// The profile of a simulation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Profile {
    /// Entries in order; the first match counts.
    pub images: Vec<Entry>,
    /// Write the events a kubelet would write.
    pub events: bool,
    /// Wait until proxies have acknowledged that a leaving pod gets no more requests.
    pub drain: bool,
}

/// What images of a pattern do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Entry {
    image: String,
    #[serde(deserialize_with = "duration")]
    pull_time: SignedDuration,
    #[serde(deserialize_with = "duration")]
    start_time: SignedDuration,
    #[serde(deserialize_with = "duration")]
    time_to_ready: SignedDuration,
    #[serde(deserialize_with = "duration")]
    stop_time: SignedDuration,
    unpullable: bool,
    never_ready: bool,
    #[serde(deserialize_with = "some_duration")]
    crash_after: Option<SignedDuration>,
    #[serde(deserialize_with = "some_duration")]
    run_time: Option<SignedDuration>,
    exit_code: Option<i32>,
    #[serde(deserialize_with = "some_amount")]
    cpu: Option<Amount>,
    #[serde(deserialize_with = "some_amount")]
    memory: Option<Amount>,
}

/// What a container uses where its image says nothing.
const CPU_MILLI: i64 = 10;
const MEMORY_BYTES: i64 = 24 << 20;

/// What one container does.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// How long the pull takes.
    pub pull: SignedDuration,
    /// The pull fails.
    pub unpullable: bool,
    /// From created to running.
    pub start: SignedDuration,
    /// From running to ready; `None`: never.
    pub ready: Option<SignedDuration>,
    /// From being asked to stop until it has.
    pub stop: SignedDuration,
    /// Ends by itself after that time with that code.
    pub life: Option<(SignedDuration, i32)>,
    /// Exit code once it is asked to stop: a server ends well, work that is not done is ended by the signal.
    pub stopped: i32,
}

/// Exit code of a process that SIGTERM ended.
const TERMINATED: i32 = 128 + 15;

impl Profile {
    /// Reads a profile.
    pub fn parse(yaml: &str) -> Result<Profile, String> {
        serde_yaml::from_str(yaml).map_err(|error| format!("the profile of simulated nodes is not valid: {error}"))
    }

    /// What a container of `image` does. `finishes`: it belongs to a pod that is meant to end.
    pub fn behaviour(&self, image: &str, finishes: bool) -> Behaviour {
        let plain = Entry::default();
        let entry = self.images.iter().find(|entry| matches(&entry.image, image)).unwrap_or(&plain);
        let life = match (entry.crash_after, entry.run_time) {
            (Some(after), _) => Some((after, entry.exit_code.unwrap_or(1))),
            (None, Some(after)) => Some((after, entry.exit_code.unwrap_or(0))),
            (None, None) => finishes.then(|| (SignedDuration::ZERO, entry.exit_code.unwrap_or(0))),
        };
        let works = entry.crash_after.is_none() && life.is_some();
        Behaviour {
            pull: entry.pull_time,
            unpullable: entry.unpullable,
            start: entry.start_time,
            ready: (!entry.never_ready).then_some(entry.time_to_ready),
            stop: entry.stop_time,
            life,
            stopped: if works { TERMINATED } else { 0 },
        }
    }

    /// What a running container of `image` uses.
    pub fn used(&self, image: &str) -> Used {
        let entry = self.images.iter().find(|entry| matches(&entry.image, image));
        entry.map_or_else(|| Entry::default().used(), Entry::used)
    }
}

impl Entry {
    fn used(&self) -> Used {
        let (cpu, memory) =
            (self.cpu.map_or(CPU_MILLI, Amount::milli), self.memory.map_or(MEMORY_BYTES, Amount::value));
        let positive = |number: i64| u64::try_from(number).unwrap_or(0);
        Used { cpu_nano: positive(cpu).saturating_mul(1_000_000), memory_bytes: positive(memory) }
    }
}

/// `*` stands for any characters; everything else for itself.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// `90`, `1.5s`, `250ms`, `2m`, `1h`.
fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} is no duration: write 250ms, 1.5s, 2m or 1h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no duration: write 250ms, 1.5s, 2m or 1h"))?;
    SignedDuration::try_from_secs_f64(number * seconds).map_err(|_| format!("{text:?} is too long"))
}

fn duration<'de, D: serde::Deserializer<'de>>(input: D) -> Result<SignedDuration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }
    match Written::deserialize(input)? {
        Written::Number(seconds) => parse_duration(&seconds.to_string()),
        Written::Text(text) => parse_duration(&text),
    }
    .map_err(serde::de::Error::custom)
}

fn some_amount<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Amount>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i64),
        Text(String),
    }
    let text = match Written::deserialize(input)? {
        Written::Number(number) => number.to_string(),
        Written::Text(text) => text,
    };
    let unreadable = |error| serde::de::Error::custom(format!("{text:?}: {error}"));
    Amount::parse(&text).map(Some).map_err(unreadable)
}

fn some_duration<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<SignedDuration>, D::Error> {
    duration(input).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_counts() {
        let profile = Profile::parse(
            "images:\n- {image: 'nginx:1.16*', pullTime: 1.5s, timeToReady: 250ms}\n- {image: '*:broken', unpullable: true}\n- {image: '*:crash', crashAfter: 3}\n",
        )
        .unwrap();
        let nginx = profile.behaviour("nginx:1.16.1", false);
        assert_eq!(
            (nginx.pull, nginx.ready),
            (SignedDuration::from_millis(1500), Some(SignedDuration::from_millis(250)))
        );
        assert!(profile.behaviour("web:broken", false).unpullable);
        assert_eq!(profile.behaviour("web:crash", false).life, Some((SignedDuration::from_secs(3), 1)));
        assert_eq!(profile.behaviour("other", false).life, None);
        assert_eq!(profile.behaviour("other", true).life, Some((SignedDuration::ZERO, 0)));
        let stopped = [("web:crash", false), ("other", false), ("other", true)]
            .map(|(image, ends)| profile.behaviour(image, ends).stopped);
        assert_eq!(stopped, [0, 0, 143]);
    }

    #[test]
    fn what_containers_use() {
        let profile = Profile::parse("images: [{image: 'busy:*', cpu: 250m, memory: 64Mi}]").unwrap();
        assert_eq!(profile.used("busy:v1"), Used { cpu_nano: 250_000_000, memory_bytes: 64 << 20 });
        assert_eq!(profile.used("other"), Used { cpu_nano: 10_000_000, memory_bytes: 24 << 20 });
        assert!(Profile::parse("images: [{image: a, cpu: lots}]").unwrap_err().contains("lots"));
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let error = Profile::parse("images:\n- {image: a, pulltime: 1s}\n").unwrap_err();
        assert!(error.contains("pulltime"), "{error}");
    }
}
