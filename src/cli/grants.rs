//! The `clients` of a server's configuration: their tokens are read, and what no entry shows by itself is
//! checked.

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use super::Variables;
use crate::config::{
    ClientGrant, ClientId, Invalid, Terms, Token,
    file::{Document, GrantFile, Object},
};

/// What each client may do. `bind` is where it may listen if its entry does not say.
pub(super) fn read(
    entries: Vec<Object<GrantFile>>,
    bind: IpAddr,
    document: &Document,
    variables: Variables<'_>,
) -> Result<Vec<ClientGrant>, Invalid> {
    let ids = || entries.iter().map(|entry| &entry.0.id);
    if let Some((earlier, index)) = repeated(ids().map(Some)) {
        let id: &ClientId = &entries[index].0.id;
        return Err(document.error(
            &format!("clients[{index}].id"),
            format_args!("clients[{earlier}] is about {id} already"),
        ));
    }
    let grant = |(index, Object(entry)): (usize, Object<GrantFile>)| {
        let token = token(&entry, document, variables).map_err(|(field, error)| {
            document.error(&format!("clients[{index}].{field}"), error)
        })?;
        let usual = Terms::on(bind);
        Ok(ClientGrant {
            id: entry.id,
            token,
            terms: Terms {
                ports: entry.ports.map_or(usual.ports, |ports| ports.0),
                binds: entry.bind.map_or(usual.binds, |binds| binds.0),
                kinds: entry.kinds,
                max_proxies: entry.max_proxies.unwrap_or(usual.max_proxies),
                hosts: entry.hosts,
                accept_proxy: entry.accept_proxy,
            },
        })
    };
    entries.into_iter().enumerate().map(grant).collect()
}

/// A client's own token, or the field that is wrong and why.
fn token(
    entry: &GrantFile,
    document: &Document,
    variables: Variables<'_>,
) -> Result<Option<Token>, (&'static str, Invalid)> {
    match (&entry.token_file, &entry.token_env) {
        (None, None) => Ok(None),
        (Some(path), None) => Token::read(&document.beside(path))
            .map(Some)
            .map_err(|error| ("token_file", error)),
        (None, Some(name)) => variables(name)
            .ok_or_else(|| Invalid::new(format!("the variable {name:?} is not set")))
            .and_then(|value| {
                Token::new(value.as_encoded_bytes())
                    .map_err(|error| Invalid::new(format!("the variable {name:?}: {error}")))
            })
            .map(Some)
            .map_err(|error| ("token_env", error)),
        (Some(_), Some(_)) => {
            let reason = "token_file says where the token is already";
            Err(("token_env", Invalid::new(reason)))
        }
    }
}

/// The first item that equals an earlier one: the earlier index, and its own.
fn repeated<T: Eq + Hash>(items: impl Iterator<Item = Option<T>>) -> Option<(usize, usize)> {
    let mut seen = HashMap::new();
    items
        .enumerate()
        .find_map(|(index, item)| Some((seen.insert(item?, index)?, index)))
}
