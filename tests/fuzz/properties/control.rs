//! Control payloads: what is taken can be said again and means the same, a newer peer's fields are
//! ignored, a missing one is not, and ids hold nothing that a log should not.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use siding::tunnel::{
    control::{
        Disconnect, Goaway, Hello, ProxyClose, ProxyConnect, ProxyOpen, ProxyOpened, Welcome,
        encode,
    },
    frame::CONTROL_MAX,
    ids::{ProxyId, UserId},
};

use super::wire::knobs;

/// Knobs: the kind. The rest is a payload.
pub fn check(input: &[u8]) {
    let Some(([kind], payload)) = knobs(input) else {
        return;
    };
    match kind {
        b'h' => taken::<Hello>(payload, &["id", "window", "version"], &["proof"]),
        b'w' => taken::<Welcome>(payload, &["window", "version"], &["proof", "closes"]),
        b'x' => taken::<ProxyClose>(payload, &["proxy_id"], &[]),
        b'o' => taken::<ProxyOpen>(payload, &["request", "spec"], &["options"]),
        b'p' => taken::<ProxyOpened>(payload, &["request"], &["proxy_id", "address", "error"]),
        b'c' => {
            taken::<ProxyConnect>(payload, CONNECT_REQUIRED, &["request"]);
            if let Ok(connect) = serde_json::from_slice::<ProxyConnect>(payload) {
                fit_for_a_log(&connect.proxy_id.to_string());
                fit_for_a_log(&connect.user_id.to_string());
            }
        }
        b'd' => taken::<Disconnect>(payload, &["how", "reason"], &[]),
        b'g' => taken::<Goaway>(payload, &["last"], &[]),
        b'i' => ids(payload),
        _ => {}
    }
}

const CONNECT_REQUIRED: &[&str] = &[
    "proxy_id",
    "user_id",
    "remote_host",
    "remote_port",
    "protocol",
];

/// Whatever `T` takes from `payload`: an object with the `required` fields, each once, and perhaps
/// the `optional` ones.
fn taken<T: Serialize + DeserializeOwned + Debug>(
    payload: &[u8],
    required: &[&str],
    optional: &[&str],
) {
    let Ok(said) = serde_json::from_slice::<T>(payload) else {
        return;
    };
    // The same fields, read without the type. Derived types take a sequence for an object, too.
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(payload) else {
        return;
    };
    let again = encoded(&said);
    for name in required {
        assert!(fields.contains_key(*name), "{name} is missing");
    }
    // What is said again holds what was there, and nothing else but what is not worth saying.
    let echoed: Map<String, Value> = serde_json::from_slice(&again).expect("our own payload");
    for (name, value) in &echoed {
        let known = required.contains(&name.as_str()) || optional.contains(&name.as_str());
        assert!(known, "{name} is not of this kind");
        if !value.is_object() {
            assert_eq!(Some(value), fields.get(name), "{name} has changed");
        }
    }
    for name in required.iter().chain(optional) {
        let silent = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        let said = fields.get(*name).is_some_and(|value| !silent(value));
        assert_eq!(echoed.contains_key(*name), said, "{name}");
    }

    // Said again it is the same for ever.
    let twice: T = serde_json::from_slice(&again).expect("our own payload");
    assert_eq!(encoded(&twice), again);
    // A newer peer may add fields.
    let mut newer = echoed.clone();
    newer.insert("x_newer".into(), Value::Array(vec![Value::Null]));
    let newer: T = serde_json::from_value(Value::Object(newer)).expect("one field more");
    assert_eq!(encoded(&newer), again);
    // None may leave one out.
    for name in required {
        let mut less = echoed.clone();
        less.remove(*name);
        let less = serde_json::from_value::<T>(Value::Object(less));
        assert!(less.is_err(), "{less:?} without {name}");
    }
}

/// What is written, in just as much room as it takes and no less.
fn encoded(payload: &impl Serialize) -> Vec<u8> {
    // JSON escapes make six bytes of one.
    let mut room = vec![0; 6 * CONTROL_MAX + 1024];
    let length = match encode(payload, &mut room) {
        Ok(length) => length,
        Err(error) => panic!("{error} in {} bytes", room.len()),
    };
    let mut exact = vec![0; length];
    assert_eq!(encode(payload, &mut exact).ok(), Some(length));
    assert_eq!(exact, room[..length]);
    assert!(encode(payload, &mut exact[..length - 1]).is_err());
    exact
}

/// Ids read back as they were written, have one spelling each, and can be told from one another.
fn ids(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    if let Ok(id) = text.parse::<ProxyId>() {
        assert_eq!(id.to_string(), text);
        fit_for_a_log(text);
        assert!(!id.client.is_empty());
    }
    if let Ok(id) = text.parse::<UserId>() {
        assert_eq!(id.to_string(), text);
        fit_for_a_log(text);
        assert!(text.parse::<ProxyId>().is_err() || !text.contains('#'));
        let next = id.exchange(id.exchange.saturating_add(1)).to_string();
        assert_eq!(
            next.parse::<UserId>(),
            Ok(id.exchange(id.exchange.saturating_add(1)))
        );
    }
}

fn fit_for_a_log(id: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-#".contains(c);
    assert!(!id.is_empty() && id.chars().all(plain), "{id:?}");
}
