//! What the proxies of a list may not be: with options that mean nothing to them, or where another is.

use std::{collections::HashMap, hash::Hash};

use super::Source;
use crate::config::{Invalid, Kind, ProxyOptions, Spec, routes::SHARING_MAX};

/// Refuses options that mean nothing for the kind of their proxy.
pub(super) fn check_options<'a>(
    proxies: impl Iterator<Item = (&'a Spec, &'a ProxyOptions)>,
    from: Source<'_>,
    name: impl Fn(usize) -> String,
) -> Result<(), Invalid> {
    for (index, (spec, options)) in proxies.enumerate() {
        if let Some((field, reason)) = options.misplaced(spec.kind) {
            let name = name(index);
            return Err(from.error(&name, &format!("{name}.{field}"), reason));
        }
    }
    Ok(())
}

/// Two proxies that cannot have the listener that they want.
pub(super) struct Collision {
    pub earlier: usize,
    pub index: usize,
    pub why: Invalid,
}

/// The first proxy that wants a listener which it cannot share with an earlier one.
pub(super) fn collision<'a, K: Eq + Hash>(
    proxies: impl Iterator<Item = (Option<K>, Kind, &'a ProxyOptions)>,
) -> Option<Collision> {
    let mut at: HashMap<K, Vec<(usize, Kind, &ProxyOptions)>> = HashMap::new();
    for (index, (listener, kind, options)) in proxies.enumerate() {
        let Some(listener) = listener else { continue };
        let there = at.entry(listener).or_default();
        for (earlier, other_kind, other) in &*there {
            if let Err(why) = options.beside(kind, other, *other_kind) {
                return Some(Collision {
                    earlier: *earlier,
                    index,
                    why,
                });
            }
        }
        if there.len() == SHARING_MAX {
            return Some(Collision {
                earlier: there[0].0,
                index,
                why: Invalid::new(format!("{SHARING_MAX} proxies are the most there can be")),
            });
        }
        there.push((index, kind, options));
    }
    None
}

/// What a listener collides on: nothing, where the system chooses its port.
pub(super) fn fixed<T>(port: u16, listener: T) -> Option<T> {
    (port != 0).then_some(listener)
}
