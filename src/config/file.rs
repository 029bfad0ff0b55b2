//! The JSON configuration files.
//!
//! Owns their shape and the errors that point into them: every error names the file, the line and
//! the field's path, as in `edge.json: line 4: proxies[1].spec: …`. It does not know the flags that
//! override it, nor does it open the files that a configuration names.

use std::{
    fmt,
    marker::PhantomData,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error, IntoDeserializer, MapAccess, Visitor,
        value::MapAccessDeserializer,
    },
};
use serde_json::error::Category;

use super::{
    ClientId, ClientLimits, ClientTimeouts, Exposed, HostField, Invalid, Kind, MemoryMax, Networks,
    PoolLimits, ProxyEntry, ProxyOptions, Rule, ServerLimits, ServerTimeouts, ServerUrl, Spec,
    UpgradeFields, files,
    grant::{Binds, max_proxies},
    locate,
    logging::{LogFormat, LogLevel},
    routes::Names,
    value::{Address, Bind, PortRange, Spin},
    via,
};

/// The largest configuration file: every port of a machine proxied takes about 6 MiB.
const FILE_BYTES_MAX: usize = 16 << 20;

/// A configuration file that was read, not yet understood.
#[derive(Debug)]
pub struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is not UTF-8; the message begins with its name.
    pub fn read(path: &Path) -> Result<Self, Invalid> {
        let refused =
            |reason: &dyn fmt::Display| Invalid::new(format!("{}: {reason}", path.display()));
        let room = FILE_BYTES_MAX as u64 + 1;
        let bytes = files::read(path, room).map_err(|error| refused(&error))?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(refused(&"is larger than 16 MiB, which no configuration is"));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            refused(&format_args!("line {line}: is not UTF-8"))
        })?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }

    /// Understands the file as a configuration of one of the roles.
    ///
    /// # Errors
    /// It is not JSON, has a field that the role does not know, or a value that is refused.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Invalid> {
        serde_json::from_str(&self.text)
            .map(|Object(value)| value)
            .map_err(|error| self.json_error(&error))
    }

    /// A path that the file names, which is relative to the file's own folder.
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// An error about the field with this path, such as `proxies[1]`; an empty path means the file.
    pub fn error(&self, field: &str, reason: impl fmt::Display) -> Invalid {
        let line = if field.is_empty() {
            None
        } else {
            locate::line_of(&self.text, field)
        };
        self.located(line, field, reason)
    }

    fn json_error(&self, error: &serde_json::Error) -> Invalid {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        // serde_json ends its messages with the place, which goes in front here.
        let place = format!(" at line {line} column {column}");
        let reason = text.strip_suffix(&place).unwrap_or(&text);
        match error.classify() {
            Category::Data => {
                let (field, line) =
                    locate::field_at(&self.text, locate::offset(&self.text, line, column));
                self.located(Some(line), &field, reason)
            }
            // What is no JSON has no fields.
            Category::Syntax | Category::Eof | Category::Io => {
                self.located(Some(line), "", format_args!("{reason} (column {column})"))
            }
        }
    }

    fn located(&self, line: Option<usize>, field: &str, reason: impl fmt::Display) -> Invalid {
        let line = line
            .map(|line| format!("line {line}: "))
            .unwrap_or_default();
        let colon = if field.is_empty() { "" } else { ": " };
        Invalid::new(format!(
            "{}: {line}{field}{colon}{reason}",
            self.path.display()
        ))
    }
}

/// A server's configuration as written; what is absent may come from flags or defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerFile {
    /// As `--log`.
    pub log: Option<LogLevel>,
    /// As `--log-format`.
    pub log_format: Option<LogFormat>,
    /// As `--listen`.
    pub listen: Option<Address>,
    /// As `--bind`.
    pub bind: Option<Bind>,
    /// As `--token-file`, relative to this file.
    pub token_file: Option<PathBuf>,
    /// As `--cert`, relative to this file.
    pub cert: Option<PathBuf>,
    /// As `--key`, relative to this file.
    pub key: Option<PathBuf>,
    /// Further certificates, for those who ask for their names.
    pub certificates: Vec<Object<CertificateFile>>,
    /// As `--client-ca`, relative to this file.
    pub client_ca: Option<PathBuf>,
    /// Whence clients may connect.
    pub allow_from: Option<Networks>,
    /// Whence they may not.
    pub deny_from: Networks,
    /// The balancers in front of their listener.
    pub accept_proxy: Networks,
    /// As `--proxy`.
    pub proxies: Vec<ProxyEntry>,
    /// What single clients may expose.
    pub clients: Vec<Object<GrantFile>>,
    /// As `--memory-max`.
    pub memory_max: Option<MemoryMax>,
    /// Deadlines.
    #[serde(deserialize_with = "object")]
    pub timeouts: ServerTimeouts,
    /// Limits.
    #[serde(deserialize_with = "object")]
    pub limits: ServerLimits,
    /// As `--spin`.
    pub spin: Option<Spin>,
    /// As `--admin`.
    pub admin: Option<Address>,
    /// As `--admin-token-file`, relative to this file.
    pub admin_token_file: Option<PathBuf>,
}

/// An entry of `certificates`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFile {
    /// A certificate and its chain, relative to this file.
    pub cert: PathBuf,
    /// Its key, relative to this file.
    pub key: PathBuf,
}

/// An entry of `clients`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantFile {
    /// Whom it is about.
    pub id: ClientId,
    /// Its own token, relative to this file.
    pub token_file: Option<PathBuf>,
    /// The variable that holds it, instead.
    pub token_env: Option<String>,
    /// The ports it may open.
    pub ports: Option<PortRange>,
    /// Where it may open them.
    pub bind: Option<Binds>,
    /// Of which kinds.
    pub kinds: Option<Vec<Kind>>,
    /// How many.
    #[serde(default, deserialize_with = "max_proxies")]
    pub max_proxies: Option<usize>,
    /// For which names.
    pub hosts: Option<Names>,
    /// Whether it may say who is a balancer.
    #[serde(default)]
    pub accept_proxy: bool,
}

/// A client's configuration as written; what is absent may come from flags or defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientFile {
    /// As `--log`.
    pub log: Option<LogLevel>,
    /// As `--log-format`.
    pub log_format: Option<LogFormat>,
    /// As `--server`.
    pub server: Option<ServerUrl>,
    /// As `--via`.
    pub via: Option<via::Asked>,
    /// What the upgrade says as `Host`.
    pub host: Option<HostField>,
    /// What else the upgrade says.
    pub headers: UpgradeFields,
    /// As `--id`.
    pub id: Option<ClientId>,
    /// As `--token-file`, relative to this file.
    pub token_file: Option<PathBuf>,
    /// As `--ca`, relative to this file.
    pub ca: Option<PathBuf>,
    /// As `--cert`, relative to this file.
    pub cert: Option<PathBuf>,
    /// As `--key`, relative to this file.
    pub key: Option<PathBuf>,
    /// As `--expose`.
    pub expose: Vec<Exposed>,
    /// As `--allow`.
    pub allow: Vec<Rule>,
    /// As `--target-ca`, relative to this file.
    pub target_ca: Option<PathBuf>,
    /// As `--memory-max`.
    pub memory_max: Option<MemoryMax>,
    /// Deadlines.
    #[serde(deserialize_with = "object")]
    pub timeouts: ClientTimeouts,
    /// What is kept parked.
    #[serde(deserialize_with = "object")]
    pub pool: PoolLimits,
    /// Limits.
    #[serde(deserialize_with = "object")]
    pub limits: ClientLimits,
    /// As `--spin`.
    pub spin: Option<Spin>,
    /// As `--admin`.
    pub admin: Option<Address>,
    /// As `--admin-token-file`, relative to this file.
    pub admin_token_file: Option<PathBuf>,
}

/// A struct that is written as an object and nothing else. Left to itself, serde also takes an array
/// of its fields in their order, in which no field has a name.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| value)
}

impl FromStr for ProxyEntry {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (client, spec) = text.split_once('=').ok_or_else(|| {
            Invalid::new(format!(
                "{text:?} is not CLIENT=SPEC, such as edge-1=tcp:10033:127.0.0.1:2222"
            ))
        })?;
        Ok(Self {
            client: client.parse()?,
            spec: spec.parse()?,
            options: ProxyOptions::default(),
        })
    }
}

/// An entry of `proxies` or `expose` in its object form: its own fields, and options.
struct EntryFile {
    client: Option<ClientId>,
    spec: Spec,
    options: ProxyOptions,
}

impl EntryFile {
    fn read<'de, A: MapAccess<'de>>(map: A) -> Result<EntryFile, A::Error> {
        let (mut client, mut spec) = (None, None);
        let options = ProxyOptions::deserialize(MapAccessDeserializer::new(OptionsOf {
            map,
            client: &mut client,
            spec: &mut spec,
        }))?;
        Ok(EntryFile {
            client,
            spec: spec.ok_or_else(|| A::Error::missing_field("spec"))?,
            options,
        })
    }
}

/// What is left of an entry's object for its options: values are read where they stand, so that an error
/// knows its line.
struct OptionsOf<'a, A> {
    map: A,
    client: &'a mut Option<ClientId>,
    spec: &'a mut Option<Spec>,
}

impl<'de, A: MapAccess<'de>> OptionsOf<'_, A> {
    fn own<T: Deserialize<'de>>(
        map: &mut A,
        field: &mut Option<T>,
        name: &'static str,
    ) -> Result<(), A::Error> {
        match field.replace(map.next_value()?) {
            None => Ok(()),
            Some(_) => Err(A::Error::duplicate_field(name)),
        }
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OptionsOf<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            match key.as_str() {
                "client" => Self::own(&mut self.map, self.client, "client")?,
                "spec" => Self::own(&mut self.map, self.spec, "spec")?,
                _ => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

impl<'de> Deserialize<'de> for ProxyEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = ProxyEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `client` and `spec`, or a string CLIENT=SPEC")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ProxyEntry, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ProxyEntry, A::Error> {
                let EntryFile {
                    client,
                    spec,
                    options,
                } = EntryFile::read(map)?;
                Ok(ProxyEntry {
                    client: client.ok_or_else(|| A::Error::missing_field("client"))?,
                    spec,
                    options,
                })
            }
        }

        deserializer.deserialize_any(EntryVisitor)
    }
}

impl<'de> Deserialize<'de> for Exposed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ExposedVisitor;

        impl<'de> Visitor<'de> for ExposedVisitor {
            type Value = Exposed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a SPEC, or an object with `spec`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Exposed, E> {
                text.parse::<Spec>().map(Exposed::from).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Exposed, A::Error> {
                let EntryFile {
                    client,
                    spec,
                    options,
                } = EntryFile::read(map)?;
                match client {
                    None => Ok(Exposed { spec, options }),
                    Some(_) => Err(A::Error::custom(
                        "unknown field `client`: whoever exposes is the client",
                    )),
                }
            }
        }

        deserializer.deserialize_any(ExposedVisitor)
    }
}

#[cfg(test)]
mod tests;
