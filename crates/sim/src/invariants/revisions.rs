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
    let there = moment.was.map(|object| object.uid());
    let told = moment.change.before.as_ref().map(|object| object.uid());
    if there == told { Ok(()) } else { Err(format!("was {there:?}, the change says {told:?}")) }
}

/// I24: a write that changes nothing is none.
pub fn change_something(moment: &Moment) -> Verdict {
    let (Some(before), Some(after)) = (&moment.change.before, &moment.change.after) else { return Ok(()) };
    // Behind the version there is the uid at least, and what changes is mostly a status, at the very end.
    let end = |json: &[u8]| json.len().saturating_sub(40);
    let same_end = before.json[end(&before.json)..] == after.json[end(&after.json)..];
    if same_end && but_version(&before.json) == but_version(&after.json) {
        return Err("was written though nothing changed".into());
    }
    Ok(())
}

/// What an object's text says before and after its `resourceVersion`.
fn but_version(json: &[u8]) -> Option<(&[u8], &[u8])> {
    const FIELD: &[u8] = b"\"resourceVersion\":\"";
    let at = json.windows(FIELD.len()).position(|window| window == FIELD)?;
    let (head, rest) = json.split_at(at + FIELD.len());
    let end = rest.iter().position(|byte| *byte == b'"')?;
    Some((head, &rest[end..]))
}
