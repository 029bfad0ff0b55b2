//! Scalars as people write them: addresses, durations, sizes, counts, port ranges.
//!
//! Owns how one value is spelled, on the command line and in JSON alike, and the sentence that says
//! what was wrong with it. It does not know which flag or field the value belongs to: whoever read
//! it adds that. The JSON side runs each check inside `Deserialize`, so that the reader of the file
//! still knows where it stood when a value is refused.

mod address;
mod duration;
mod size;
mod spin;

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{
    Deserializer,
    de::{Error, Visitor},
};

pub use self::{
    address::{Address, Bind, PortRange, port, target_port},
    duration::{DURATION_MAX, duration, grace, period},
    size::{SIZE_MAX, count_within, size, size_within},
    spin::{SPIN_MAX, Spin},
};

/// Why a value was refused: one sentence that quotes what was wrong and names the accepted form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(String);

impl Invalid {
    /// A refusal with its reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

/// A value that is written as one string wherever it occurs.
pub trait Text: FromStr<Err = Invalid> {
    /// What is accepted, to follow "expected": `"a client id"`.
    const FORM: &'static str;
}

/// Makes a [`FromStr`] type a [`Text`] that JSON holds as a string; with `Serialize`, it is written as it prints.
macro_rules! impl_text {
    ($type:ty, $form:expr, Serialize) => {
        $crate::config::value::impl_text!($type, $form);

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
    ($type:ty, $form:expr) => {
        impl $crate::config::value::Text for $type {
            const FORM: &'static str = $form;
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::config::value::from_text(deserializer)
            }
        }
    };
}
pub(crate) use impl_text;

/// Reads a string and parses it on the spot.
///
/// # Errors
/// It is no string, or [`FromStr`] refuses it.
pub fn from_text<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct TextVisitor<T>(PhantomData<T>);

    impl<T: Text> Visitor<'_> for TextVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(T::FORM)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(TextVisitor(PhantomData))
}
