//! How much is logged, and how a line of the log looks.

use std::str::FromStr;

use log::Level;

use super::value::{Invalid, impl_text};

/// What the log is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// The least important lines that are written.
    pub level: Level,
    /// How they look.
    pub format: LogFormat,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            level: Level::Info,
            format: LogFormat::Auto,
        }
    }
}

/// How much is logged: one of the five levels, in lower case. There is no "off": a message at level
/// `error` is one that an operator must act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(pub Level);

impl FromStr for LogLevel {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let level = match text {
            "error" => Level::Error,
            "warn" => Level::Warn,
            "info" => Level::Info,
            "debug" => Level::Debug,
            "trace" => Level::Trace,
            _ => {
                return Err(Invalid::new(format!(
                    "{text:?} is not a level: error, warn, info, debug or trace"
                )));
            }
        };
        Ok(Self(level))
    }
}

impl_text!(
    LogLevel,
    "a level: \"error\", \"warn\", \"info\", \"debug\" or \"trace\""
);

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// [`Human`](Self::Human) where a person looks on, that is, on a terminal; else [`Text`](Self::Text).
    #[default]
    Auto,
    /// Time, level and message.
    Text,
    /// A JSON object.
    Json,
    /// For a person who looks on.
    Human,
}

impl FromStr for LogFormat {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Ok(match text {
            "auto" => Self::Auto,
            "text" => Self::Text,
            "json" => Self::Json,
            "human" => Self::Human,
            _ => {
                return Err(Invalid::new(format!(
                    "{text:?} is not a format: auto, text, json or human"
                )));
            }
        })
    }
}

impl_text!(
    LogFormat,
    "a format: \"auto\", \"text\", \"json\" or \"human\""
);

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    fn refusal<T: FromStr<Err = Invalid> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().expect_err(text).to_string()
    }

    #[test]
    fn levels_are_the_five_words() {
        for text in ["error", "warn", "info", "debug", "trace"] {
            assert_eq!(
                text.parse::<LogLevel>().unwrap().0.as_str().to_lowercase(),
                text
            );
        }
        for text in ["", "off", "INFO", "warning", "3"] {
            assert!(
                refusal::<LogLevel>(text).contains("error, warn, info, debug or trace"),
                "{text}"
            );
        }
    }

    #[test]
    fn formats_are_the_four_words() {
        for (text, format) in [
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
            ("human", LogFormat::Human),
        ] {
            assert_eq!(text.parse(), Ok(format));
        }
        for text in ["", "JSON", "logfmt", "plain"] {
            assert!(
                refusal::<LogFormat>(text).contains("auto, text, json or human"),
                "{text}"
            );
        }
    }
}
