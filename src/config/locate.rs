//! Which field stands at a place of a JSON text, and at which line a field stands.
//!
//! Errors must name the line and the path of a field. serde_json knows a line but no path when it
//! refuses a value, and neither when a check across several fields fails later. Both are answered
//! here by one scan, on the error path only. The text need not be valid: the scan reads brackets,
//! commas and strings, and takes anything else for part of a value.

use std::fmt::Write;

/// The field that was being read where the first `offset` bytes of `text` end, and the line (from 1)
/// on which it begins. The path is empty for the document as a whole.
pub fn field_at(text: &str, offset: usize) -> (String, usize) {
    // An array or object that was refused unread has begun all the same.
    let unread = matches!(text.as_bytes().get(offset), Some(b'[' | b'{'));
    let offset = offset.saturating_add(usize::from(unread));
    let mut scan = Scan::new(&text[..floor(text, offset)]);
    while scan.step().is_some() {}
    (scan.path(), scan.line())
}

/// The line (from 1) on which the field with this path begins, such as `proxies[1].spec`.
pub fn line_of(text: &str, path: &str) -> Option<usize> {
    let mut scan = Scan::new(text);
    while let Some(begun) = scan.step() {
        if begun == Begun::Value && scan.path() == path {
            return Some(scan.line());
        }
    }
    None
}

/// The byte offset of a place that serde_json gives as a line (from 1) and a column, which counts
/// the bytes of that line before it.
pub fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    (start + column).min(text.len())
}

fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// What one step of the scan came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    Key,
    Value,
    Nothing,
}

/// One container that is open, with the member that was begun last.
struct Open {
    member: Member,
    /// Where that member begins, with its key if it has one; the container, before its first member.
    start: usize,
}

enum Member {
    /// Of an object; `None` until a key was read.
    Key {
        name: Option<String>,
        awaits_value: bool,
    },
    /// Of an array; `None` until an element has begun.
    Index(Option<usize>),
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Open>,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            open: Vec::new(),
        }
    }

    /// Reads one token; `None` at the end of the text.
    fn step(&mut self) -> Option<Begun> {
        let start = self.at;
        let byte = *self.text.as_bytes().get(start)?;
        self.at += 1;
        Some(match byte {
            b'{' | b'[' => {
                self.begin_value(start);
                let member = if byte == b'{' {
                    Member::Key {
                        name: None,
                        awaits_value: false,
                    }
                } else {
                    Member::Index(None)
                };
                self.open.push(Open { member, start });
                Begun::Value
            }
            b'}' | b']' => {
                self.open.pop();
                Begun::Nothing
            }
            b'"' => {
                self.skip_string();
                self.string(start)
            }
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => Begun::Nothing,
            _ => {
                let rest = &self.text[start..];
                let ends = |c: char| " \t\r\n,:\"{}[]".contains(c);
                self.at = start + rest.find(ends).unwrap_or(rest.len());
                self.begin_value(start);
                Begun::Value
            }
        })
    }

    /// Leaves `at` behind the closing quote.
    fn skip_string(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => {
                    self.at += 1;
                    return;
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at = bytes.len();
    }

    fn string(&mut self, start: usize) -> Begun {
        if let Some(Open {
            member: Member::Key { name, awaits_value },
            start: begun,
        }) = self.open.last_mut()
            && !*awaits_value
        {
            let raw = &self.text[start..self.at];
            // A key with a bad escape still gets shown, as it was written.
            *name = Some(serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()));
            *awaits_value = true;
            *begun = start;
            return Begun::Key;
        }
        self.begin_value(start);
        Begun::Value
    }

    fn begin_value(&mut self, start: usize) {
        let Some(open) = self.open.last_mut() else {
            return;
        };
        match &mut open.member {
            Member::Key { awaits_value, .. } => *awaits_value = false,
            Member::Index(index) => {
                *index = Some(index.map_or(0, |index| index + 1));
                open.start = start;
            }
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.member {
                Member::Key {
                    name: Some(name), ..
                } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Member::Index(Some(index)) => {
                    write!(path, "[{index}]").expect("a String takes everything");
                }
                Member::Key { name: None, .. } | Member::Index(None) => {}
            }
        }
        path
    }

    fn line(&self) -> usize {
        let start = self.open.last().map_or(0, |open| open.start);
        1 + self.text[..start].matches('\n').count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{ "listen": "a",
  "proxies": [
    { "client": "x", "spec": "one" },
    {
      "client": "a \"quoted\" {[,: name",
      "spec": "two"
    },
    "three", 4, null
  ],
  "limits": { "undelivered": 12 },
  "allow": []
}
"#;

    fn after(needle: &str) -> usize {
        TEXT.find(needle).expect(needle) + needle.len()
    }

    #[test]
    fn every_place_has_its_path_and_line() {
        for (needle, path, line) in [
            ("{ ", "", 1),
            ("\"a\"", "listen", 1),
            ("\"proxies\"", "proxies", 2),
            ("\"one\"", "proxies[0].spec", 3),
            ("\"one\" }", "proxies[0]", 3),
            ("{[,: name\"", "proxies[1].client", 5),
            ("\"two\"", "proxies[1].spec", 6),
            ("\"two\"\n    }", "proxies[1]", 4),
            ("\"three\"", "proxies[2]", 8),
            (" 4", "proxies[3]", 8),
            ("null", "proxies[4]", 8),
            ("12", "limits.undelivered", 10),
            ("12 }", "limits", 10),
            ("\"allow\": ", "allow", 11),
            ("\"allow\": [", "allow", 11),
            ("\"allow\": []\n}", "", 1),
        ] {
            assert_eq!(
                field_at(TEXT, after(needle)),
                (path.to_owned(), line),
                "{needle}"
            );
        }
    }

    #[test]
    fn every_path_has_its_line() {
        for (path, line) in [
            ("listen", Some(1)),
            ("proxies", Some(2)),
            ("proxies[0]", Some(3)),
            ("proxies[1]", Some(4)),
            ("proxies[1].spec", Some(6)),
            ("proxies[4]", Some(8)),
            ("limits.undelivered", Some(10)),
            ("allow", Some(11)),
            ("allow[0]", None),
            ("absent", None),
        ] {
            assert_eq!(line_of(TEXT, path), line, "{path}");
        }
    }

    #[test]
    fn escaped_keys_are_found_by_what_they_mean() {
        assert_eq!(line_of("{\n\"\\u0061b\": 1}", "ab"), Some(2));
    }

    #[test]
    fn no_text_makes_the_scan_panic_or_hang() {
        for text in [
            "",
            "\"",
            "\"\\",
            "{\"a",
            "}}]]",
            "[[[[",
            "{\"a\":}",
            "é\"é\\é",
            ",,::",
            "{\"\\ud800\": 1",
            "\u{c}\u{b}",
        ] {
            for offset in 0..=text.len() + 2 {
                let (_, line) = field_at(text, offset);
                assert_eq!(line, 1);
            }
            assert_eq!(line_of(text, "no such field"), None);
        }
    }

    #[test]
    fn offsets_count_the_bytes_of_whole_lines() {
        let text = "ab\ncd\r\n\nef";
        assert_eq!(offset(text, 1, 0), 0);
        assert_eq!(offset(text, 2, 1), 4);
        assert_eq!(offset(text, 4, 2), text.len());
        assert_eq!(offset(text, 9, 9), text.len());
    }
}
