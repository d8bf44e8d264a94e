//! Where in a document of known type a merge is, and how the fields there are merged.

use super::{Result, StrategicError};
use crate::schema::table::{Field, Leaf, TypeId, Wrap, table};

/// What a patch is merged into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// An object: directives act and vanish.
    Object,
    /// Another patch: directives and nulls are kept.
    Patch,
}

/// A place in the document.
#[derive(Clone, Copy)]
pub(super) struct Context {
    shape: Shape,
    pub(super) target: Target,
}

#[derive(Clone, Copy)]
enum Shape {
    Struct(TypeId),
    /// A map with values like this.
    MapOf(Leaf),
    MapOfLists,
    /// Nothing that can be merged into.
    Opaque(Leaf),
}

/// How a field is merged, and what is below it.
pub(super) struct Member {
    pub(super) below: Context,
    pub(super) merge: bool,
    pub(super) replace: bool,
    pub(super) retain_keys: bool,
    pub(super) merge_key: &'static str,
}

impl Context {
    pub(super) fn top(kind: TypeId, target: Target) -> Context {
        Context { shape: Shape::Struct(kind), target }
    }

    /// Name of the type, for messages.
    pub(super) fn name(self) -> &'static str {
        match self.shape {
            Shape::Struct(id) => table().get(id).name,
            _ => "",
        }
    }

    pub(super) fn member(self, key: &str) -> Result<Member> {
        match self.shape {
            Shape::Struct(id) => {
                table().get(id).field(key).map(|field| self.field(field)).ok_or_else(|| no_field(self.name(), key))
            }
            Shape::MapOf(leaf) => Ok(self.plain(Shape::of(leaf))),
            Shape::MapOfLists => Ok(self.plain(Shape::Opaque(Leaf::String))),
            Shape::Opaque(Leaf::Raw) => Err(no_field("RawExtension", key)),
            Shape::Opaque(leaf) => Err(no_field(&format!("{leaf:?}"), key)),
        }
    }

    /// As [`Context::member`] for a list; upstream cannot merge lists in maps.
    pub(super) fn list(self, key: &str) -> Result<Member> {
        match self.shape {
            Shape::MapOf(_) | Shape::MapOfLists => {
                let what = "merging an object in json but data type is not struct, instead is: map";
                Err(StrategicError::Other(what.into()))
            }
            _ => self.member(key),
        }
    }

    fn field(self, field: &Field) -> Member {
        let shape = match field.wrap {
            Wrap::One | Wrap::List => Shape::of(field.leaf),
            Wrap::Map => Shape::MapOf(field.leaf),
            Wrap::MapOfLists => Shape::MapOfLists,
        };
        let (merge, replace, retain_keys) = (field.merge, field.replace, field.retain_keys);
        Member { merge, replace, retain_keys, merge_key: field.merge_key, ..self.plain(shape) }
    }

    fn plain(self, shape: Shape) -> Member {
        let below = Context { shape, target: self.target };
        Member { below, merge: false, replace: false, retain_keys: false, merge_key: "" }
    }
}

impl Shape {
    fn of(leaf: Leaf) -> Shape {
        match leaf {
            Leaf::Struct(id) => Shape::Struct(id),
            other => Shape::Opaque(other),
        }
    }
}

fn no_field(owner: &str, key: &str) -> StrategicError {
    StrategicError::Other(format!("unable to find api field in struct {owner} for the json field {key:?}"))
}
