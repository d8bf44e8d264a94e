//! The store's order: every change has the next revision, follows from the last one, and changes something.

use super::{Moment, Verdict};

/// I16: revisions grow by one, and the object carries its own.
pub fn grow_by_one(moment: &Moment) -> Verdict {
    let (last, here) = (moment.before.revision(), moment.change.revision);
    if here != last + 1 {
        return Err(format!("revision {here} after {last}"));
    }
    match &moment.change.after {
        Some(object) if object.meta().resource_version.as_deref() != Some(&here.to_string()) => {
            Err(format!("carries resourceVersion {:?}", object.meta().resource_version))
        }
        _ => Ok(()),
    }
}

/// I17: what a change says was there is what was there: a list and the changes after it give every later list.
pub fn follow_each_other(moment: &Moment) -> Verdict {
    let key = moment.change.object().key();
    let there = moment.before.at(&key).map(|object| object.uid());
    let told = moment.change.before.as_ref().map(|object| object.uid());
    if there == told { Ok(()) } else { Err(format!("was {there:?}, the change says {told:?}")) }
}

/// I24: a write that changes nothing is none.
pub fn change_something(moment: &Moment) -> Verdict {
    let (Some(before), Some(after)) = (&moment.change.before, &moment.change.after) else { return Ok(()) };
    if before.json.len() != after.json.len() {
        return Ok(());
    }
    let mut same = after.body.clone();
    same.meta_mut().resource_version = before.meta().resource_version.clone();
    if same == before.body { Err("was written though nothing changed".into()) } else { Ok(()) }
}
