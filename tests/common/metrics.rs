//! What Prometheus reads: version 0.0.4 of its text format, by the letter.
//!
//! Stricter than Prometheus itself, which forgives a lot: each family stands once, with its HELP, its TYPE and
//! then all of its samples, and each series once.

use std::collections::{HashMap, HashSet};

/// A page of metrics, understood.
#[derive(Debug)]
pub struct Metrics {
    samples: HashMap<(String, Vec<(String, String)>), f64>,
    families: HashMap<String, String>,
}

impl Metrics {
    /// Reads a page.
    ///
    /// # Panics
    /// It breaks the format.
    #[track_caller]
    pub fn read(text: &str) -> Self {
        let mut metrics = Self {
            samples: HashMap::new(),
            families: HashMap::new(),
        };
        assert!(text.ends_with('\n'), "the last line ends");
        let (mut family, mut kind) = (String::new(), String::new());
        let mut helped = HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(is_name(name, true) && !help.is_empty(), "{line}");
                assert!(helped.insert(name.to_owned()), "twice: {line}");
                family = name.to_owned();
                kind.clear();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, of) = rest.split_once(' ').expect(line);
                assert_eq!(name, family, "TYPE follows HELP");
                assert!(kind.is_empty(), "twice: {line}");
                assert!(["gauge", "counter", "histogram"].contains(&of), "{line}");
                assert_eq!(name.ends_with("_total"), of == "counter", "{line}");
                kind = of.to_owned();
                metrics.families.insert(family.clone(), kind.clone());
            } else {
                assert!(!kind.is_empty(), "a sample before its TYPE: {line}");
                let (name, labels, value) = sample(line);
                let suffix = name.strip_prefix(&*family).expect("it is of its family");
                let suffixes: &[&str] = match &*kind {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{line}");
                assert!(kind == "gauge" || value >= 0.0, "{line}");
                let once = metrics.samples.insert((name, labels), value);
                assert_eq!(once, None, "twice: {line}");
            }
        }
        metrics.check_histograms();
        metrics
    }

    /// The value of a series, whose labels may stand in any order.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels)
            .unwrap_or_else(|| panic!("there is no {name} {labels:?} in {self:?}"))
    }

    /// As [`Metrics::value`], if there is such a series.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut labels: Vec<(String, String)> = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        labels.sort();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// The sum over all series of a name that have this label, whatever else they have.
    pub fn sum(&self, name: &str, label: (&str, &str)) -> f64 {
        let of = self.samples.iter().filter(|((of, labels), _)| {
            of == name && labels.iter().any(|(n, v)| (&**n, &**v) == label)
        });
        of.map(|(_, value)| value).sum()
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    fn check_histograms(&self) {
        for (family, _) in self
            .families
            .iter()
            .filter(|(_, kind)| *kind == "histogram")
        {
            let bucket = format!("{family}_bucket");
            let mut buckets: Vec<(f64, f64)> = Vec::new();
            for ((name, labels), value) in &self.samples {
                if *name == bucket {
                    let [(label, bound)] = &labels[..] else {
                        panic!("a bucket of {family} has other labels: {labels:?}");
                    };
                    assert_eq!(label, "le");
                    buckets.push((number(bound), *value));
                }
            }
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1));
            let (last, all) = buckets.last().expect("a histogram has buckets");
            assert_eq!(*last, f64::INFINITY);
            assert_eq!(self.value(&format!("{family}_count"), &[]), *all);
            assert!(self.value(&format!("{family}_sum"), &[]) >= 0.0);
        }
    }
}

/// A line of a sample: its name, its labels in order, and its value.
fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(is_name(label, false), "{line}");
            let (value, after) = quoted(after, line);
            labels.push((label.to_owned(), value));
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => {
                    rest = after.strip_prefix('}').expect(line);
                    break;
                }
            }
        }
    }
    labels.sort();
    let repeated = labels.windows(2).any(|pair| pair[0].0 == pair[1].0);
    assert!(!repeated, "a label twice: {line}");
    let value = rest.strip_prefix(' ').expect(line);
    (name.to_owned(), labels, number(value))
}

/// What stands before the closing quote, and what behind it.
fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                other => panic!("{other:?} is escaped in {line}"),
            },
            character => value.push(character),
        }
    }
    panic!("a quote does not end: {line}");
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        _ => {
            let value: f64 = text.parse().unwrap_or_else(|_| panic!("{text:?}"));
            assert!(value.is_finite() && !text.contains(char::is_whitespace));
            value
        }
    }
}

fn is_name(text: &str, colon: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    text.chars().all(fits) && text.starts_with(|c: char| !c.is_ascii_digit())
}
