//! What the API was last told of a pod's status, and whether it may have lost it.
//!
//! Decides only. A write that was late may come after a newer one and undo it. When the watch shows that while nothing
//! is being written, the status is written again at once. While something is being written nobody can tell: what is seen
//! may be from before it. Then it is looked at once more a little after the answer, when the watch has caught up.

use jiff::{SignedDuration, Timestamp};

/// How long after an answer the watch has shown what was written.
const CAUGHT_UP: SignedDuration = SignedDuration::from_secs(5);

/// Where the writes of one pod's status stand. `S` is what is remembered of a status: all of it, or a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<S> {
    /// The last status that the API took; `None` when it is to be written again.
    last: Option<S>,
    under_way: bool,
    /// Something else was seen while it was being written.
    contradicted: bool,
    look_at: Option<Timestamp>,
}

impl<S> Default for Written<S> {
    fn default() -> Self {
        Written { last: None, under_way: false, contradicted: false, look_at: None }
    }
}

impl<S: PartialEq> Written<S> {
    /// True while a write waits for its answer.
    pub fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// True if nothing was written yet, or it is to be written again.
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// True if this is what the API was last told.
    pub fn is(&self, status: &S) -> bool {
        self.last.as_ref() == Some(status)
    }

    /// A write begins.
    pub fn begin(&mut self) {
        self.under_way = true;
    }

    /// The API was seen to have what is so (`agrees`), or something else.
    pub fn seen(&mut self, agrees: bool) {
        if self.under_way {
            self.contradicted = !agrees;
            return;
        }
        self.look_at = None;
        if !agrees {
            self.last = None;
        }
    }

    /// The API took this status.
    pub fn taken(&mut self, status: S, now: Timestamp) {
        self.under_way = false;
        self.last = Some(status);
        let doubtful = std::mem::take(&mut self.contradicted);
        self.look_at = now.checked_add(CAUGHT_UP).ok().filter(|_| doubtful);
    }

    /// The API did not take it, or nobody knows.
    pub fn failed(&mut self) {
        self.under_way = false;
        self.contradicted = false;
    }

    /// When to look again whether the API has what was written.
    pub fn look_at(&self) -> Option<Timestamp> {
        self.look_at.filter(|_| !self.under_way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Each case: what happens, then what is known. `W` a write begins, `T` it is taken, `F` it fails, `+` and `-` the watch
    /// shows what is so or something else.
    fn play(story: &str) -> String {
        let mut written = Written::default();
        for word in story.chars() {
            match word {
                'W' => written.begin(),
                'T' => written.taken(b"ready".to_vec(), at(100)),
                'F' => written.failed(),
                sign => written.seen(sign == '+'),
            }
        }
        let again = if written.is_empty() { "to be written" } else { "written" };
        let look = written.look_at().map_or(String::new(), |time| format!(", looks again at {}", time.as_second()));
        let under_way = if written.is_under_way() { ", under way" } else { "" };
        format!("{story:6} {again}{under_way}{look}\n")
    }

    #[test]
    fn a_status_that_the_api_lost_is_written_again() {
        let stories = ["W", "WT", "WT+", "WT-", "W-T", "W-T+", "W-T-", "W-+T", "W-F", "WTW-"];
        expect_test::expect![[r#"
            W      to be written, under way
            WT     written
            WT+    written
            WT-    to be written
            W-T    written, looks again at 105
            W-T+   written
            W-T-   to be written
            W-+T   written
            W-F    to be written
            WTW-   written, under way
        "#]]
        .assert_eq(&stories.map(play).concat());
    }
}
