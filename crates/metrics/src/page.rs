//! The text format: families of samples, each with what it means.

use std::fmt::{self, Display, Write as _};

use crate::measure::{Histogram, Unit};

/// What a family's samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Numbers that only grow while a server lives; named `…_total`.
    Counter,
    /// Numbers as they are now.
    Gauge,
    /// How many observations lay in which range.
    Histogram,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A page of metrics as it is being written.
#[derive(Debug, Default)]
pub struct Page(String);

/// One metric of a page: its samples follow.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

/// Names and values. A name is ours; so MUST a value be: never something that a client chose.
type Labels<'a> = &'a [(&'static str, &'a str)];

impl Page {
    /// The content type of a whole page.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a metric. `help` is one line.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        put(&mut self.0, format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str()));
        Family { text: &mut self.0, name }
    }

    /// Returns the whole page.
    pub fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", labels, None, &value);
    }

    /// Adds a histogram's samples.
    pub fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let unit = histogram.unit();
        let mut all = 0;
        for (end, below) in histogram.ranges() {
            let end = end.map_or_else(|| "+Inf".to_owned(), |end| told(unit, end));
            self.line("_bucket", labels, Some(&end), &below);
            all = below;
        }
        self.line("_sum", labels, None, &told(unit, histogram.sum()));
        // The last range's, and not a counter of its own: the two must never differ.
        self.line("_count", labels, None, &all);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: &dyn Display) {
        put(self.text, format_args!("{}{suffix}", self.name));
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(le.map(|le| ("le", le))) {
            put(self.text, format_args!("{separator}{name}=\"{}\"", Escaped(value)));
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        put(self.text, format_args!(" {value}\n"));
    }
}

fn put(text: &mut String, what: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(what);
}

/// Microseconds as seconds, exactly: a bound is compared as text by whoever asks for a quantile.
fn told(unit: Unit, value: u64) -> String {
    match unit {
        Unit::Things => value.to_string(),
        Unit::Time => {
            let text = format!("{}.{:06}", value / 1_000_000, value % 1_000_000);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Counter;

    #[test]
    fn a_page_is_the_text_format() {
        let (counter, histogram) = (Counter::default(), Histogram::of_time(&[500, 1_000_000, 60_000_000]));
        counter.add_one();
        for micros in [0, 500, 501, 1_000_001, 99_000_000] {
            histogram.took(Duration::from_micros(micros));
        }
        let sizes = Histogram::of_things(&[1, 10]);
        sizes.observe(10);
        let mut page = Page::default();
        page.family("a_total", Kind::Counter, "Things.").sample(&[("kind", "x\"\\\n")], counter.get());
        page.family("b", Kind::Gauge, "Now.").sample(&[], 0.25);
        page.family("c_seconds", Kind::Histogram, "How long.").histogram(&[("route", "/a/{id}")], &histogram);
        page.family("d", Kind::Histogram, "How many.").histogram(&[], &sizes);
        let expected = "\
# HELP a_total Things.
# TYPE a_total counter
a_total{kind=\"x\\\"\\\\\\n\"} 1
# HELP b Now.
# TYPE b gauge
b 0.25
# HELP c_seconds How long.
# TYPE c_seconds histogram
c_seconds_bucket{route=\"/a/{id}\",le=\"0.0005\"} 2
c_seconds_bucket{route=\"/a/{id}\",le=\"1\"} 3
c_seconds_bucket{route=\"/a/{id}\",le=\"60\"} 4
c_seconds_bucket{route=\"/a/{id}\",le=\"+Inf\"} 5
c_seconds_sum{route=\"/a/{id}\"} 100.001002
c_seconds_count{route=\"/a/{id}\"} 5
# HELP d How many.
# TYPE d histogram
d_bucket{le=\"1\"} 0
d_bucket{le=\"10\"} 1
d_bucket{le=\"+Inf\"} 1
d_sum 10
d_count 1
";
        assert_eq!(page.finish(), expected);
    }

    #[test]
    fn nothing_that_is_observed_is_lost_however_many_count_at_once() {
        let histogram = Histogram::of_things(&[5]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|value| histogram.observe(value)));
            }
        });
        assert_eq!(histogram.ranges().collect::<Vec<_>>(), [(Some(5), 24), (None, 4000)]);
        assert_eq!(histogram.sum(), 4 * 499_500);
    }
}
