//! Where a value came from: so an error of it names what is to be corrected.

use std::fmt;

use super::usage_error;
use crate::config::{Invalid, file::Document};

/// Where a value came from, and so how to speak of it in an error.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Flag,
    Field(&'a Document),
}

impl<'a> Source<'a> {
    /// A list or value is the file's only if it was not typed and there is a file.
    pub fn of(typed: bool, document: Option<&'a Document>) -> Self {
        match document {
            Some(document) if !typed => Self::Field(document),
            _ => Self::Flag,
        }
    }

    pub fn error(self, flag: &str, field: &str, reason: impl fmt::Display) -> Invalid {
        match self {
            Source::Flag => Invalid::new(usage_error(format_args!("{flag}: {reason}"))),
            Source::Field(document) => document.error(field, reason),
        }
    }
}
