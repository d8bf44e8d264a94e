//! Whether a selector fits pods of a namespace, judged once for all that are kin.

use std::collections::HashMap;

use api::Member;
use api::selector::Selector;

use crate::pods;

/// A selector, and what it was asked before.
pub struct Kin<'a> {
    selector: &'a Selector,
    namespace: Option<&'a str>,
    /// It asks for labels that pods of one kin do not have in common: each pod is judged.
    each: bool,
    /// What was judged last: most often it is asked again.
    last: Option<(u64, bool)>,
    known: HashMap<u64, bool>,
}

impl<'a> Kin<'a> {
    /// Nothing of another namespace fits.
    pub fn of(selector: &'a Selector, namespace: Option<&'a str>) -> Kin<'a> {
        Kin { selector, namespace, each: selector.tells_kin_apart(), last: None, known: HashMap::new() }
    }

    /// True if the pod is in the namespace and meant by the selector.
    pub fn fits(&mut self, member: &Member) -> bool {
        let kin = member.kin();
        match self.last.filter(|_| !self.each) {
            Some((last, fits)) if last == kin => fits,
            _ => {
                let known = self.known.get(&kin).copied().filter(|_| !self.each);
                let fits = known.unwrap_or_else(|| self.judge(member));
                self.known.insert(kin, fits);
                self.last = Some((kin, fits));
                fits
            }
        }
    }

    fn judge(&self, member: &Member) -> bool {
        let pod = member.pod();
        pod.metadata.namespace.as_deref() == self.namespace && self.selector.matches(pods::labels(pod))
    }
}
