//! The files that flags and fields name: what a flag names is found from where the program was started, what
//! a field names beside the configuration.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::Source;
use crate::config::{
    Identity, Invalid, ProxyOptions, Roots, Token, Users,
    file::{CertificateFile, Document},
    token::{self, Origin},
};

/// Reads and understands the configuration, if there is one.
pub(super) fn read<T: Default + DeserializeOwned>(
    path: Option<&Path>,
) -> Result<(T, Option<Document>), Invalid> {
    let Some(path) = path else {
        return Ok((T::default(), None));
    };
    let document = Document::read(path)?;
    Ok((document.decode()?, Some(document)))
}

/// The files that flags and fields name.
pub(super) struct Files<'a> {
    pub document: Option<&'a Document>,
}

impl Files<'_> {
    pub fn roots(
        &self,
        typed: Option<PathBuf>,
        field: Option<PathBuf>,
        flag: &str,
        name: &str,
    ) -> Result<Option<Roots>, Invalid> {
        let from = Source::of(typed.is_some(), self.document);
        typed
            .or_else(|| field.map(|path| self.beside(&path)))
            .map(|path| Roots::read(&path).map_err(|error| from.error(flag, name, error)))
            .transpose()
    }

    /// A certificate and its key, which come from the same place: a flag does not go with a field.
    pub fn identity(
        &self,
        typed: (Option<PathBuf>, Option<PathBuf>),
        field: (Option<PathBuf>, Option<PathBuf>),
    ) -> Result<Option<Identity>, Invalid> {
        let is_typed = typed.0.is_some() || typed.1.is_some();
        let from = Source::of(is_typed, self.document);
        let pair = if is_typed {
            typed
        } else {
            let beside = |path: Option<PathBuf>| path.map(|path| self.beside(&path));
            (beside(field.0), beside(field.1))
        };
        match pair {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Identity::read(&certificate, &key)
                .map(Some)
                .map_err(|error| from.error("--cert", "cert", error)),
            (Some(_), None) => Err(from.error("--cert", "cert", "its key is missing (--key, key)")),
            (None, Some(_)) => {
                Err(from.error("--key", "key", "its certificate is missing (--cert, cert)"))
            }
        }
    }

    pub fn listed_identity(
        &self,
        field: &str,
        pair: &CertificateFile,
    ) -> Result<Identity, Invalid> {
        Identity::read(&self.beside(&pair.cert), &self.beside(&pair.key))
            .map_err(|error| Source::of(false, self.document).error("", field, error))
    }

    fn beside(&self, path: &Path) -> PathBuf {
        match self.document {
            Some(document) => document.beside(path),
            None => path.to_owned(),
        }
    }
}

/// The token from the flag, the variable or the file's field, in that order.
pub(super) fn load_token(
    flag: Option<&Path>,
    variable: Option<OsString>,
    field: Option<PathBuf>,
    document: Option<&Document>,
) -> Result<Option<Token>, Invalid> {
    let field = match document {
        Some(document) => field.map(|path| document.beside(&path)),
        None => None,
    };
    token::load(flag, variable, field.as_deref()).map_err(|(origin, error)| {
        match (origin, document) {
            (Origin::Field, Some(document)) => document.error("token_file", error),
            (Origin::Variable, _) => Source::Flag.error(token::VARIABLE, "", error),
            (Origin::Flag | Origin::Field, _) => Source::Flag.error("--token-file", "", error),
        }
    })
}

/// Reads the users of the proxies in this list of the file.
pub(super) fn read_users<'a>(
    options: impl Iterator<Item = &'a mut ProxyOptions>,
    list: &str,
    document: Option<&Document>,
) -> Result<(), Invalid> {
    // What was typed has no options.
    let Some(document) = document else {
        return Ok(());
    };
    for (index, options) in options.enumerate() {
        if let Some(path) = &options.users_file {
            let users = Users::read(&document.beside(path));
            options.users =
                Some(users.map_err(|error| {
                    document.error(&format!("{list}[{index}].users_file"), error)
                })?);
        }
    }
    Ok(())
}
