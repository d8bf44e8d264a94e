//! The state as the store gives it back when a server starts: decoded, ready to be served.

use std::sync::Arc;

use api::{Change, Key, Object, PodSpecs, Snapshot};

use crate::ServerError;

/// What a server goes on with.
pub struct Recovered {
    /// Everything that is live.
    pub world: Snapshot,
    /// What happened after `compacted`, in order, for watches that resume.
    pub history: Vec<Change>,
    /// History reaches back to revisions greater than this.
    pub compacted: u64,
}

impl Recovered {
    /// Decodes what the store gives back. Kinds this version does not know are refused rather than lost.
    pub fn read(stored: &store::Recovered) -> Result<Recovered, ServerError> {
        let (mut world, mut specs) = (Snapshot::default(), PodSpecs::default());
        for record in &stored.objects {
            if let Some(object) = object(&record.key, record.value.as_ref(), record.revision, &mut specs)? {
                world.put(object);
            }
        }
        world.advance(stored.revision);
        let pairs = stored.history.iter().zip(&stored.previous);
        let changes = pairs.map(|(record, previous)| {
            let after = object(&record.key, record.value.as_ref(), record.revision, &mut specs)?;
            let mut before = object(&record.key, previous.as_ref(), record.revision, &mut specs)?;
            if after.is_none() {
                // Watchers are shown the last state with the revision of the removal.
                before = before.map(|last| Object::written(last.body.clone(), record.revision));
            }
            Ok((before.is_some() || after.is_some()).then_some(Change { revision: record.revision, before, after }))
        });
        let history = changes.filter_map(Result::transpose).collect::<Result<Vec<Change>, ServerError>>()?;
        Ok(Recovered { world, history, compacted: stored.compacted })
    }
}

fn object(
    key: &str,
    json: Option<&bytes::Bytes>,
    revision: u64,
    specs: &mut PodSpecs,
) -> Result<Option<Arc<Object>>, ServerError> {
    let unreadable = |error: String| ServerError::Unreadable { key: key.to_owned(), error };
    let kind = Key::from_storage_key(key).ok_or_else(|| unreadable("unknown kind".into()))?.kind;
    let object = json.map(|json| Object::recovered(kind, json.clone(), revision, specs)).transpose();
    object.map_err(|error| unreadable(error.to_string()))
}
