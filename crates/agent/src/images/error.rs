//! What can go wrong with images, worded for people and told apart for the kubelet's reasons.

use std::{io, path::Path};

use crate::runtime::RuntimeError;

/// Why the image store refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name cannot be an image reference.
    #[error("{0}")]
    InvalidName(String),
    /// No image has this name here.
    #[error(
        "image \"{0}\" is not on this node; see `kapstan image ls`, or get it with `kapstan image import` or `build`"
    )]
    NotFound(String),
    /// `imagePullPolicy: Never` and the image is not here.
    #[error("Container image \"{0}\" is not present with pull policy of Never")]
    NeverPull(String),
    /// A registry did not give the image.
    #[error("{0}")]
    Pull(String),
    /// A layer is damaged or tries what a layer must not.
    #[error("layer {layer}: {problem}")]
    Layer {
        /// Digest, or its place in the image.
        layer: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An archive, manifest or configuration cannot be understood.
    #[error("{0}")]
    Format(String),
    /// A Containerfile asks for what cannot be done.
    #[error("{0}")]
    Build(String),
    /// `registries.yaml` or `--registry-mirror` is wrong.
    #[error("{0}")]
    Registries(String),
    /// The root file system could not be put together.
    #[error("{0}")]
    Mount(String),
    /// Input or output failed.
    #[error("{0}")]
    Io(String),
}

impl Error {
    /// An input or output error with what was being done to which file.
    pub(super) fn io(doing: &str, path: &Path, error: impl Into<io::Error>) -> Error {
        Error::Io(format!("{doing} {}: {}", path.display(), error.into()))
    }
}

impl From<Error> for RuntimeError {
    fn from(error: Error) -> RuntimeError {
        let text = error.to_string();
        match error {
            Error::InvalidName(_) => RuntimeError::InvalidImageName(text),
            Error::NeverPull(_) => RuntimeError::ImageNeverPull(text),
            Error::Mount(_) => RuntimeError::Start(text),
            Error::Registries(_) | Error::Pull(_) | Error::Layer { .. } | Error::Format(_) => {
                RuntimeError::ImagePull(text)
            }
            Error::NotFound(_) | Error::Build(_) | Error::Io(_) => RuntimeError::Io(text),
        }
    }
}
