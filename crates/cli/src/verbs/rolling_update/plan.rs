//! The arithmetic of a rolling update of ReplicationControllers: sizes in, the next step out. Pure.
//!
//! Mirrors kubectl 1.17 `pkg/kubectl/rolling_updater.go` (`scaleUp`, `scaleDown`) with a surge of one pod. One thing is other: how many
//! pods have to stay available is taken from the size that the update starts from where that is smaller than the size it goes to,
//! since pods that never were cannot stay.

/// What holds during an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Size of the new controller in the end.
    pub desired: i64,
    /// Pods that stay available.
    pub keep: i64,
    /// The most pods there are at once.
    pub most: i64,
}

/// Sizes of the two controllers, and how many of the new one's pods are available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The old controller's.
    pub old: i64,
    /// The new controller's.
    pub new: i64,
    /// Available pods of the new one.
    pub available: i64,
}

impl Bounds {
    /// An update from `original` pods to `desired`, with one pod more at a time.
    pub fn new(original: i64, desired: i64) -> Bounds {
        let keep = original.min(desired);
        Bounds { desired, keep, most: desired.max(keep + 1) }
    }

    /// The first line about an update.
    pub fn announce(&self, old_name: &str, new_name: &str, sizes: Sizes) -> String {
        format!(
            "Scaling up {new_name} from {} to {}, scaling down {old_name} from {} to 0 (keep {} pods available, don't exceed {} pods)",
            sizes.new, self.desired, sizes.old, self.keep, self.most
        )
    }

    /// The size the new controller may have now, if it is larger than the one it has.
    pub fn up(&self, sizes: Sizes) -> Option<i64> {
        let room = if sizes.old == 0 { self.desired - sizes.new } else { self.most - sizes.old - sizes.new };
        let size = (sizes.new + room).min(self.desired);
        (sizes.new < size).then_some(size)
    }

    /// The size the old controller may have now, if it is smaller than the one it has.
    pub fn down(&self, sizes: Sizes) -> Option<i64> {
        let unavailable = (sizes.new - sizes.available).max(0);
        let spare = sizes.old + sizes.new - self.keep - unavailable;
        let all_there = sizes.new == self.desired && sizes.available >= self.desired;
        let size = if all_there { 0 } else { (sizes.old - spare).max(0) };
        (size < sizes.old).then_some(size)
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self, sizes: Sizes) -> bool {
        sizes.new == self.desired && sizes.old == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Plays an update whose pods are ready at once.
    fn play(old: i64, new: i64, bounds: Bounds) -> String {
        let mut sizes = Sizes { old, new, available: new };
        let mut lines = vec![bounds.announce("old", "new", sizes)];
        while !bounds.is_done(sizes) {
            if let Some(size) = bounds.up(sizes) {
                lines.push(format!("Scaling new up to {size}"));
                sizes.new = size;
                sizes.available = size;
            }
            if let Some(size) = bounds.down(sizes) {
                lines.push(format!("Scaling old down to {size}"));
                sizes.old = size;
            }
        }
        lines.join("\n")
    }

    #[test]
    fn a_new_image() {
        expect_test::expect![[r#"
            Scaling up new from 0 to 3, scaling down old from 3 to 0 (keep 3 pods available, don't exceed 4 pods)
            Scaling new up to 1
            Scaling old down to 2
            Scaling new up to 2
            Scaling old down to 1
            Scaling new up to 3
            Scaling old down to 0"#]]
        .assert_eq(&play(3, 0, Bounds::new(3, 3)));
    }

    #[test]
    fn a_file_with_another_size() {
        expect_test::expect![[r#"
            Scaling up new from 0 to 5, scaling down old from 4 to 0 (keep 4 pods available, don't exceed 5 pods)
            Scaling new up to 1
            Scaling old down to 3
            Scaling new up to 2
            Scaling old down to 2
            Scaling new up to 3
            Scaling old down to 1
            Scaling new up to 4
            Scaling old down to 0
            Scaling new up to 5"#]]
        .assert_eq(&play(4, 0, Bounds::new(4, 5)));
    }

    #[test]
    fn back_again() {
        expect_test::expect![[r#"
            Scaling up new from 1 to 1, scaling down old from 1 to 0 (keep 1 pods available, don't exceed 2 pods)
            Scaling old down to 0"#]]
        .assert_eq(&play(1, 1, Bounds::new(2, 1)));
    }

    proptest! {
        /// However slowly pods get ready: never too many, never too few, and it ends.
        #[test]
        fn bounds_hold(original in 1..9_i64, desired in 1..9_i64, ready in proptest::collection::vec(0..3_i64, 200)) {
            let bounds = Bounds::new(original, desired);
            let mut sizes = Sizes { old: original, new: 0, available: 0 };
            let mut ready = ready.into_iter();
            for _ in 0..200 {
                if let Some(size) = bounds.up(sizes) {
                    prop_assert!(sizes.new < size && size <= desired);
                    sizes.new = size;
                    prop_assert!(sizes.old + sizes.new <= bounds.most.max(original));
                }
                sizes.available = (sizes.available + ready.next().unwrap_or(1).max(0)).min(sizes.new);
                if let Some(size) = bounds.down(sizes) {
                    prop_assert!(0 <= size && size < sizes.old);
                    sizes.old = size;
                    prop_assert!(bounds.keep <= sizes.old + sizes.available);
                }
            }
            let mut left = 0;
            while !bounds.is_done(sizes) {
                left += 1;
                prop_assert!(left < 100);
                sizes.new = bounds.up(sizes).unwrap_or(sizes.new);
                sizes.available = sizes.new;
                sizes.old = bounds.down(sizes).unwrap_or(sizes.old);
            }
        }
    }
}
