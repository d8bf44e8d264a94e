//! Whether labels fit, judged once for all pods that have the same ones.

use std::collections::HashMap;

use api::Pod;
use api::pod_facts::Facts;

/// What is true of pods by their labels and their namespace, and by nothing else.
pub struct Kin<F> {
    judge: F,
    /// What was judged last: most often it is asked again.
    last: Option<(u64, bool)>,
    known: HashMap<u64, bool>,
}

impl<F: Fn(&Pod) -> bool> Kin<F> {
    /// `judge` must look at nothing but labels and namespace.
    pub fn new(judge: F) -> Kin<F> {
        Kin { judge, last: None, known: HashMap::new() }
    }

    /// The judgement of the pod that has these facts.
    pub fn fits<'a>(&mut self, facts: &Facts, pod: impl FnOnce() -> &'a Pod) -> bool {
        let kin = facts.kin();
        match self.last {
            Some((last, fits)) if last == kin => fits,
            _ => {
                let fits = *self.known.entry(kin).or_insert_with(|| (self.judge)(pod()));
                self.last = Some((kin, fits));
                fits
            }
        }
    }
}
