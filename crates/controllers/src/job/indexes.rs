//! A set of completion indexes, as Jobs write it: `1,3-5,7`.
//!
//! Mirrors orderedIntervals of upstream's `pkg/controller/job/indexed_job_utils.go`. Kept as intervals, because a Job
//! may have a hundred thousand indexes and most of them stand in long rows.

use std::fmt;

/// Intervals with both ends in, ascending and never touching each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads the text form; what is not below `completions`, or not understood, is left out.
    pub fn parse(text: &str, completions: i32) -> Indexes {
        let interval = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<i32>().ok()?, last.parse::<i32>().ok()?.min(completions - 1));
            (0 <= first && first <= last).then_some((first, last))
        };
        Indexes::normalised(text.split(',').filter_map(interval).collect())
    }

    /// The set of these indexes.
    pub fn of(indexes: impl IntoIterator<Item = i32>) -> Indexes {
        Indexes::normalised(indexes.into_iter().map(|index| (index, index)).collect())
    }

    /// All that is in one of the two.
    pub fn with(&self, other: &Indexes) -> Indexes {
        Indexes::normalised(self.0.iter().chain(&other.0).copied().collect())
    }

    fn normalised(mut intervals: Vec<(i32, i32)>) -> Indexes {
        intervals.sort_unstable();
        let mut merged: Vec<(i32, i32)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Indexes(merged)
    }

    /// True if the index is in.
    pub fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many there are.
    pub fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many are in both.
    pub fn shared(&self, other: &Indexes) -> i32 {
        let overlap = |a: &(i32, i32), b: &(i32, i32)| (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
        self.0.iter().map(|one| other.0.iter().map(|two| overlap(one, two)).sum::<i32>()).sum()
    }

    /// The lowest `count` indexes below `completions` that are not in.
    pub fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut found = Vec::with_capacity(count);
        let mut next = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            found.extend((next..first.min(completions)).take(count - found.len()));
            next = last.saturating_add(1);
        }
        found
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Indexes;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn texts() {
        let again = |text: &str| Indexes::parse(text, 10).to_string();
        let texts = ["", "1", "1,2", "1,3-5,7", "0-9", "8-20", "12", "3,1,2", "-1", "x,4", "5-3"];
        assert_eq!(texts.map(again), ["", "1", "1,2", "1,3-5,7", "0-9", "8,9", "", "1-3", "", "4", ""]);
    }

    proptest! {
        #[test]
        fn as_a_set_does(a in prop::collection::btree_set(0..30i32, 0..20), b in prop::collection::btree_set(0..30i32, 0..20), count in 0..10usize) {
            let (one, two) = (Indexes::of(a.clone()), Indexes::of(b.clone()));
            let both: BTreeSet<i32> = a.union(&b).copied().collect();
            prop_assert_eq!(one.with(&two), Indexes::of(both.clone()));
            prop_assert_eq!(Indexes::parse(&one.to_string(), 30), one.clone());
            prop_assert_eq!(one.total() as usize, a.len());
            prop_assert_eq!(one.shared(&two) as usize, a.intersection(&b).count());
            prop_assert!((0..30).all(|index| one.has(index) == a.contains(&index)));
            let missing: Vec<i32> = (0..30).filter(|index| !a.contains(index)).take(count).collect();
            prop_assert_eq!(one.missing(count, 30), missing);
        }
    }
}
