//! What a line of the log looks like.
//!
//! A record is one line in every style, whatever its message holds: control characters are escaped, so that
//! nothing a peer has said ends a line or is obeyed by a terminal. It knows neither the time nor where the
//! line goes.
//!
//! Fields of a record (`info!(client:% = id; "…")`) are for programs: [`Style::Json`] has them, the other
//! styles have what the message says of them. The one that is named `say` is for people: in
//! [`Style::Human`] it stands in place of the message, and nowhere else does it stand.

use std::{
    env, fmt,
    io::{self, IsTerminal, Write},
    ops::Range,
    time::Duration,
};

use log::{
    Level, Record,
    kv::{self, Key, Value, VisitSource, VisitValue},
};
use serde::Serialize;

use crate::{config::LogFormat, date::Timestamp};

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Style {
    /// Time, level and message: as one greps it.
    Text,
    /// A JSON object.
    Json,
    /// The time of day and what a person wants to know.
    Human,
    /// As [`Human`](Self::Human), in colours.
    Coloured,
}

/// What is known of where standard error goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// A terminal that knows how to move and colour.
    pub is_terminal: bool,
    /// It may be coloured, as far as the person is concerned.
    pub may_colour: bool,
}

impl Screen {
    /// Looks where standard error goes, and what the person has said of it (<https://no-color.org>).
    pub fn of_stderr() -> Screen {
        let said = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        Screen {
            is_terminal: io::stderr().is_terminal() && said("TERM").is_some_and(|it| it != "dumb"),
            may_colour: said("NO_COLOR").is_none(),
        }
    }
}

impl Style {
    /// What is meant by a format on this screen.
    pub fn of(format: LogFormat, screen: Screen) -> Style {
        match format {
            LogFormat::Auto if !screen.is_terminal => Style::Text,
            LogFormat::Text => Style::Text,
            LogFormat::Json => Style::Json,
            LogFormat::Auto | LogFormat::Human if screen.is_terminal && screen.may_colour => {
                Style::Coloured
            }
            LogFormat::Auto | LogFormat::Human => Style::Human,
        }
    }

    /// The line of a record at `unix` since the Unix epoch, before which `left_out` lines of its statement
    /// were not written.
    pub fn line(self, record: &Record<'_>, left_out: u64, unix: Duration) -> Vec<u8> {
        let mut line = Vec::with_capacity(LINE_USUAL);
        let written = match self {
            Style::Text => text(&mut line, record, left_out, unix),
            Style::Json => json(&mut line, record, left_out, unix),
            Style::Human => human(&mut line, record, left_out, unix, false),
            Style::Coloured => human(&mut line, record, left_out, unix, true),
        };
        // Memory takes everything; what cannot print itself is no reason to fall silent.
        let _ = written;
        line.push(b'\n');
        line
    }
}

fn text(line: &mut Vec<u8>, record: &Record<'_>, left_out: u64, unix: Duration) -> io::Result<()> {
    let (level, message) = (record.level(), OneLine(record.args()));
    write!(line, "{} [{level}] {message}", Timestamp::at(unix))?;
    more(line, left_out)
}

fn json(line: &mut Vec<u8>, record: &Record<'_>, left_out: u64, unix: Duration) -> io::Result<()> {
    let level = record.level().as_str().to_ascii_lowercase();
    write!(
        line,
        r#"{{"time":"{}","level":"{level}""#,
        Timestamp::at(unix)
    )?;
    let mut fields = Fields(line);
    fields.add("target", record.target())?;
    fields.add("message", format_args!("{}", OneLine(record.args())))?;
    record
        .key_values()
        .visit(&mut fields)
        .map_err(|_| io::Error::from(io::ErrorKind::Other))?;
    if left_out > 0 {
        fields.add("left_out", left_out)?;
    }
    line.push(b'}');
    Ok(())
}

fn human(
    line: &mut Vec<u8>,
    record: &Record<'_>,
    left_out: u64,
    unix: Duration,
    coloured: bool,
) -> io::Result<()> {
    let colour = |code: &'static str| if coloured { code } else { "" };
    let (dim, plain) = (colour("\x1b[2m"), colour("\x1b[0m"));
    // Whoever looks on knows the date.
    let time = &Timestamp::at(unix).to_string()[TIME_OF_DAY];
    write!(line, "{dim}{time}Z{plain}  ")?;
    match record.level() {
        Level::Error => write!(line, "{}error:{plain} ", colour("\x1b[1;31m"))?,
        Level::Warn => write!(line, "{}warning:{plain} ", colour("\x1b[1;33m"))?,
        Level::Info => {}
        Level::Debug | Level::Trace => write!(line, "{dim}")?,
    }
    match record.key_values().get(Key::from_str(SAY)) {
        Some(said) => write!(line, "{}", OneLine(said))?,
        None => write!(line, "{}", OneLine(record.args()))?,
    }
    more(line, left_out)?;
    if record.level() >= Level::Debug {
        write!(line, "{plain}")?;
    }
    Ok(())
}

fn more(line: &mut Vec<u8>, left_out: u64) -> io::Result<()> {
    match left_out {
        0 => Ok(()),
        _ => write!(line, " (and {left_out} more such lines)"),
    }
}

/// What it prints, with control characters escaped.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

        impl fmt::Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for part in text.split_inclusive(char::is_control) {
                    let plain = part.trim_end_matches(char::is_control);
                    self.0.write_str(plain)?;
                    write!(self.0, "{}", part[plain.len()..].escape_default())?;
                }
                Ok(())
            }
        }

        fmt::Write::write_fmt(&mut Escaping(f), format_args!("{}", self.0))
    }
}

/// Appends the fields of a record to an object that has some.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn add(&mut self, key: &str, value: impl Serialize) -> io::Result<()> {
        write!(self.0, r#","{key}":"#)?;
        Ok(serde_json::to_writer(&mut *self.0, &value)?)
    }
}

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let key = key.as_str();
        if key == SAY {
            return Ok(());
        }
        debug_assert!(!OF_EACH.contains(&key), "{key} is taken");
        value.visit(Field(self, key))
    }
}

/// The value of a field: a number is one, and whatever else is as it prints.
struct Field<'a, 'b>(&'a mut Fields<'b>, &'a str);

impl Field<'_, '_> {
    fn add(&mut self, value: impl Serialize) -> Result<(), kv::Error> {
        // The error has no room for another without `kv_std`.
        let Self(fields, key) = self;
        fields
            .add(key, value)
            .map_err(|_| kv::Error::msg("it cannot be written"))
    }
}

impl<'v> VisitValue<'v> for Field<'_, '_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.add(format_args!("{}", OneLine(value)))
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.add(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.add(value)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.add(value)
    }
}

/// What each object has, so that no field may be called like it.
const OF_EACH: [&str; 5] = ["time", "level", "target", "message", "left_out"];

/// The field that is for people.
const SAY: &str = "say";

/// `03:25:45` in a timestamp.
const TIME_OF_DAY: Range<usize> = 11..19;

/// Most lines are shorter, and are written without growing.
const LINE_USUAL: usize = 192;

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_micros(1_795_663_545_123_456);

    type Pairs<'a> = &'a [(&'a str, Value<'a>)];

    /// The line in each style, without its end.
    fn lines(
        level: Level,
        message: fmt::Arguments<'_>,
        fields: Pairs<'_>,
        left_out: u64,
    ) -> [String; 4] {
        let record = Record::builder()
            .level(level)
            .target("siding::server::links")
            .key_values(&fields)
            .args(message)
            .build();
        [Style::Text, Style::Json, Style::Human, Style::Coloured].map(|style| {
            let line = style.line(&record, left_out, AT);
            let mut line = String::from_utf8(line).expect("text");
            assert_eq!(line.pop(), Some('\n'));
            line
        })
    }

    #[test]
    fn a_record_is_a_line_in_each_style() {
        let fields: Pairs<'_> = &[
            ("client", Value::from("edge-1")),
            ("bytes_up", Value::from(u64::MAX)),
            ("seconds", Value::from(0.25)),
            ("odd", Value::from(f64::NAN)),
            ("absent", Value::null()),
            ("say", Value::from("edge-1 is here")),
        ];
        let [text, json, human, coloured] =
            lines(Level::Info, format_args!("link edge-1: up"), fields, 0);
        assert_eq!(text, "2026-11-26T03:25:45.123456Z [INFO] link edge-1: up");
        assert_eq!(
            json,
            r#"{"time":"2026-11-26T03:25:45.123456Z","level":"info","target":"siding::server::links","message":"link edge-1: up","client":"edge-1","bytes_up":18446744073709551615,"seconds":0.25,"odd":null,"absent":null}"#
        );
        assert_eq!(human, "03:25:45Z  edge-1 is here");
        assert_eq!(coloured, "\x1b[2m03:25:45Z\x1b[0m  edge-1 is here");
    }

    #[test]
    fn what_is_wrong_stands_out() {
        for (level, human, coloured) in [
            (Level::Error, "error: no", "\x1b[1;31merror:\x1b[0m no"),
            (Level::Warn, "warning: no", "\x1b[1;33mwarning:\x1b[0m no"),
            (Level::Info, "no", "no"),
            (Level::Debug, "no", "\x1b[2mno\x1b[0m"),
            (Level::Trace, "no", "\x1b[2mno\x1b[0m"),
        ] {
            let [text, json, plainly, in_colour] = lines(level, format_args!("no"), &[], 0);
            assert!(text.ends_with(&format!(" [{level}] no")), "{text}");
            let level = level.as_str().to_lowercase();
            assert!(json.contains(&format!(r#""level":"{level}""#)), "{json}");
            assert_eq!(plainly, format!("03:25:45Z  {human}"));
            assert_eq!(in_colour, format!("\x1b[2m03:25:45Z\x1b[0m  {coloured}"));
        }
    }

    #[test]
    fn lines_that_were_left_out_are_a_number_to_programs() {
        let [text, json, human, _] = lines(Level::Info, format_args!("refused"), &[], 7);
        assert!(text.ends_with("refused (and 7 more such lines)"), "{text}");
        assert!(human.ends_with("refused (and 7 more such lines)"));
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            (&json["message"], &json["left_out"]),
            (&"refused".into(), &7.into())
        );
    }

    #[test]
    fn whatever_a_message_holds_it_is_one_line_that_no_terminal_obeys() {
        let all: String = ('\0'..='\u{2ff}')
            .chain(['\u{2028}', '\u{fffd}', '😀'])
            .collect();
        let fields: Pairs<'_> = &[
            ("odd", Value::from_display(&all)),
            ("say", Value::from(&*all)),
        ];
        let [text, json, human, coloured] = lines(Level::Info, format_args!("<{all}>"), fields, 0);
        for line in [
            &text,
            &json,
            &human,
            coloured.split_at(coloured.find("  ").unwrap()).1,
        ] {
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(
                line.contains("\\u{1b}") && line.contains("\\u{9b}"),
                "{line}"
            );
            assert!(line.contains("ÿ") && line.contains("😀"), "{line}");
        }
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let message = json["message"].as_str().expect("text");
        assert!(text.ends_with(message), "the same words: {message}");
        assert_eq!(
            message,
            format!("<{}>", json["odd"].as_str().expect("text"))
        );
    }

    #[test]
    fn a_person_is_spoken_to_on_a_terminal_and_colours_are_a_choice() {
        use LogFormat::{Auto, Human, Json, Text};
        let screen = |is_terminal, may_colour| Screen {
            is_terminal,
            may_colour,
        };
        for (format, screen, style) in [
            (Auto, screen(true, true), Style::Coloured),
            (Auto, screen(true, false), Style::Human),
            (Auto, screen(false, true), Style::Text),
            (Auto, screen(false, false), Style::Text),
            (Human, screen(true, true), Style::Coloured),
            (Human, screen(true, false), Style::Human),
            (Human, screen(false, true), Style::Human),
            (Text, screen(true, true), Style::Text),
            (Json, screen(true, true), Style::Json),
        ] {
            assert_eq!(Style::of(format, screen), style, "{format:?} on {screen:?}");
        }
    }
}
