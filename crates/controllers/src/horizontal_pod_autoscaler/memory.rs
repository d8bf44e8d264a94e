//! What an autoscaler has recommended and done, as far as later decisions need it.
//!
//! A decision remembers nothing, so it is written down, in an annotation of the autoscaler; upstream keeps it in memory
//! and forgets it with every restart (`recommendations` and `scaleUpEvents` in `horizontal.go`). A recommendation holds
//! until the next one differs, so that a steady autoscaler writes nothing; and one that a later one exceeds both ways
//! cannot matter any more, so that few are kept.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The annotation.
pub const ANNOTATION: &str = "kapstan.dev/scaling-history";
/// Scalings kept; more within the longest period of a policy (half an hour) than the clock ticks cannot be.
const SCALINGS: usize = 128;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What is recommended since the last difference.
    recommended: Option<i32>,
    /// What was recommended before, each with the time until which it held; oldest first.
    past: Vec<(Timestamp, i32)>,
    /// When replicas were added, or taken away (negative); oldest first.
    scaled: Vec<(Timestamp, i32)>,
}

impl Memory {
    /// Reads the annotation; what is not readable is as if nothing had been before.
    pub fn read(text: Option<&str>) -> Memory {
        let value: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let number = |value: &Value| value.as_i64().and_then(|number| i32::try_from(number).ok());
        let list = |name: &str| {
            let entries = value[name].as_array().into_iter().flatten();
            let pair = |entry: &Value| Some((Timestamp::from_second(entry[0].as_i64()?).ok()?, number(&entry[1])?));
            entries.filter_map(pair).collect::<Vec<_>>()
        };
        Memory { recommended: number(&value["recommended"]), past: list("past"), scaled: list("scaled") }
    }

    /// As the annotation.
    pub fn write(&self) -> String {
        let list = |entries: &[(Timestamp, i32)]| -> Value {
            entries.iter().map(|(time, number)| json!([time.as_second(), number])).collect()
        };
        let mut value = json!({ "recommended": self.recommended });
        for (name, entries) in [("past", &self.past), ("scaled", &self.scaled)] {
            if !entries.is_empty() {
                value[name] = list(entries);
            }
        }
        value.to_string()
    }

    /// Notes a recommendation. The first one ever comes after `current`, the replicas that were there.
    pub fn recommend(&mut self, wanted: i32, current: i32, now: Timestamp) {
        let before = *self.recommended.get_or_insert(current);
        if before != wanted {
            self.past.push((now, before));
            self.recommended = Some(wanted);
        }
        let mut later = vec![wanted];
        let mut kept = Vec::new();
        for entry in self.past.drain(..).rev() {
            let outdone = later.iter().any(|it| *it >= entry.1) && later.iter().any(|it| *it <= entry.1);
            if !outdone {
                later.push(entry.1);
                kept.push(entry);
            }
        }
        kept.reverse();
        self.past = kept;
    }

    /// Notes a change of the replicas.
    pub fn scale(&mut self, by: i32, now: Timestamp) {
        self.scaled.push((now, by));
    }

    /// Forgets what is older than these many seconds.
    pub fn forget(&mut self, recommended_seconds: i32, scaled_seconds: i32, now: Timestamp) {
        let since = |seconds: i32| now.saturating_sub(SignedDuration::from_secs(seconds.into())).unwrap_or(now);
        let (recommended, scaled) = (since(recommended_seconds), since(scaled_seconds));
        self.past.retain(|(until, _)| recommended < *until);
        self.scaled.retain(|(at, _)| scaled < *at);
        self.scaled.drain(..self.scaled.len().saturating_sub(SCALINGS));
    }

    /// The lowest of `wanted` and what was recommended in the last `seconds`.
    pub fn lowest(&self, wanted: i32, seconds: i32, now: Timestamp) -> i32 {
        self.recent(seconds, now).fold(wanted, i32::min)
    }

    /// The highest of `wanted` and what was recommended in the last `seconds`.
    pub fn highest(&self, wanted: i32, seconds: i32, now: Timestamp) -> i32 {
        self.recent(seconds, now).fold(wanted, i32::max)
    }

    fn recent(&self, seconds: i32, now: Timestamp) -> impl Iterator<Item = i32> {
        let since = now.saturating_sub(SignedDuration::from_secs(seconds.into())).unwrap_or(now);
        self.past.iter().filter(move |(until, _)| since < *until).map(|(_, number)| *number)
    }

    /// Replicas added since then, less those taken away.
    pub fn scaled_since(&self, since: Timestamp) -> i32 {
        self.scaled.iter().filter(|(at, _)| since < *at).map(|(_, by)| *by).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_steady_recommendation_changes_nothing_and_few_are_kept() {
        let mut memory = Memory::default();
        for (second, wanted) in [(0, 5), (15, 5), (30, 9), (45, 7), (60, 8), (75, 6), (90, 6)] {
            memory.recommend(wanted, 4, at(second));
        }
        assert_eq!(memory.write(), r#"{"past":[[0,4],[30,5],[45,9],[75,8]],"recommended":6}"#);
        assert_eq!((memory.highest(6, 60, at(100)), memory.highest(6, 40, at(100))), (9, 8));
        assert_eq!((memory.lowest(6, 80, at(100)), memory.lowest(6, 10, at(100))), (5, 6));
        memory.scale(3, at(80));
        memory.scale(-1, at(95));
        assert_eq!((memory.scaled_since(at(70)), memory.scaled_since(at(80))), (2, -1));
        memory.forget(60, 10, at(100));
        assert_eq!(memory.write(), r#"{"past":[[45,9],[75,8]],"recommended":6,"scaled":[[95,-1]]}"#);
        assert_eq!(Memory::read(Some(&memory.write())), memory);
        assert_eq!(Memory::read(Some("nonsense")), Memory::default());
    }
}
