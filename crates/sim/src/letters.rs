//! What clients ask the API for, in a form that can be sent twice.

use api::patch::PatchType;
use api::schema::Mode;
use api::{Body, Key};
use bytes::Bytes;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use server::door::{DeleteOptions, Part, Patch};
use server::turn::Action;

use crate::node::Report;

/// Who asks, to be answered.
#[derive(Clone, Debug)]
pub enum Sender {
    /// The agent of a node: index of the node, uid of the pod, life of the agent, what it sent.
    Agent(usize, String, u32, Report),
    /// A person; nobody waits for the answer.
    Person,
    /// A node that shows that it lives; the next time is soon.
    Beat,
    /// A person who drains a node: what a budget does not allow now is asked for again.
    Drain,
}

/// A request.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Make an object.
    Create(String, Body),
    /// Replace a part of an object.
    Update(Key, Part, Body),
    /// Patch a part of an object.
    Patch(Key, Part, PatchType, Bytes),
    /// End an object.
    Delete(Key, DeleteOptions),
    /// End a pod, if its budget allows it.
    Evict(Key, DeleteOptions),
}

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Letter {
    /// From whom.
    pub sender: Sender,
    /// What.
    pub ask: Ask,
    /// For the trace.
    pub words: String,
    /// I10: the template that a Deployment is to have once this is done.
    pub expects: Option<PodTemplateSpec>,
}

impl Letter {
    /// A person's request.
    pub fn of_person(ask: Ask, words: String) -> Letter {
        Letter { sender: Sender::Person, ask, words, expects: None }
    }
}

impl Ask {
    /// The object concerned, as far as its name is known.
    pub fn key(&self) -> Key {
        match self {
            Ask::Create(namespace, body) => {
                let namespace = if body.kind().namespaced() { namespace.clone() } else { String::new() };
                Key::new(body.kind(), namespace, body.meta().name.clone().unwrap_or_default())
            }
            Ask::Update(key, ..) | Ask::Patch(key, ..) | Ask::Delete(key, _) | Ask::Evict(key, _) => key.clone(),
        }
    }

    /// The same as the turn wants it.
    pub fn action(&self) -> Action {
        match self.clone() {
            Ask::Create(namespace, body) => Action::Create(namespace, body),
            Ask::Update(key, part, body) => Action::Update(key, part, body),
            Ask::Patch(key, part, kind, document) => {
                Action::Patch(key, part, Box::new(Patch { kind, document, mode: Mode::Warn }))
            }
            Ask::Delete(key, options) => Action::Delete(key, options),
            Ask::Evict(key, options) => Action::Evict(key, options),
        }
    }
}
