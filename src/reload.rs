//! What both roles say of a new configuration. It knows neither.

use log::warn;

use crate::config::AdminConfig;

/// Warns of what has changed and is kept as it was; each field comes with whether it is the same.
pub(crate) fn warn_of_kept(fields: &[(&str, bool)]) {
    let changed = fields.iter().filter(|(_, same)| !same);
    let changed: Vec<&str> = changed.map(|(field, _)| *field).collect();
    if !changed.is_empty() {
        warn!(
            "reload: {} stay as they were until a restart",
            changed.join(", ")
        );
    }
}

/// Whether an admin is met where it was.
pub(crate) fn is_same_listener(old: &Option<AdminConfig>, new: &Option<AdminConfig>) -> bool {
    let [old, new] = [old, new].map(|admin| admin.as_ref().map(|admin| admin.listen));
    old == new
}
