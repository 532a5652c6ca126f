//! One span for each request, so that every line of the log says which request it is about.
//!
//! A span holds what the server knows by itself or has checked. Never a path, a query, a header or a body as it came: those
//! carry commands, notes and tokens.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method};
use tracing::Span;
use tracing::field::Empty;

use crate::metrics::UNMATCHED;

/// The trace that a caller says this request is part of: W3C Trace Context, level 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traceparent<'a> {
    /// 32 lower-case hexadecimal digits, not all of them 0.
    pub(crate) trace_id: &'a str,
    /// The caller's own span: 16 such digits.
    pub(crate) parent_id: &'a str,
    /// Whether the caller keeps its own span.
    pub(crate) sampled: bool,
}

impl<'a> Traceparent<'a> {
    /// Returns what the one `traceparent` header says. Two of them, or one that is not of the documented form, say nothing:
    /// the request is answered as if it had none.
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut all = headers.get_all("traceparent").iter();
        match (all.next(), all.next()) {
            (Some(one), None) => Self::parse(one.to_str().ok()?),
            _ => None,
        }
    }

    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let (version, trace_id, parent_id) = (parts.next()?, parts.next()?, parts.next()?);
        let (flags, rest) = (parts.next()?, parts.next());
        let wanted = [(version, 2), (trace_id, 32), (parent_id, 16), (flags, 2)];
        let well_formed = wanted.iter().all(|(part, digits)| part.len() == *digits && part.bytes().all(hexadecimal));
        let said_something = [trace_id, parent_id].iter().all(|id| id.bytes().any(|digit| digit != b'0'));
        // A later version may say more, after what this one knows. Its `ff` is none.
        let ends = version != "ff" && (version != "00" || rest.is_none());
        let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        (well_formed && said_something && ends).then_some(Self { trace_id, parent_id, sampled })
    }
}

const fn hexadecimal(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Returns the span of a request. The principal and the status are recorded when they are known.
pub(crate) fn span(request: &Request, route: Option<&MatchedPath>, id: &str) -> Span {
    let traceparent = Traceparent::of(request.headers());
    tracing::info_span!(
        "request",
        method = known(request.method()),
        route = route.map_or(UNMATCHED, MatchedPath::as_str),
        request_id = id,
        trace_id = traceparent.map(|from| from.trace_id),
        parent_id = traceparent.map(|from| from.parent_id),
        sampled = traceparent.map(|from| from.sampled),
        principal = Empty,
        status = Empty,
    )
}

/// A method's word; what is none that we know is the client's own text.
fn known(method: &Method) -> &'static str {
    let all = [
        (Method::GET, "GET"),
        (Method::POST, "POST"),
        (Method::DELETE, "DELETE"),
        (Method::HEAD, "HEAD"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
    ];
    all.into_iter().find(|(known, _)| known == method).map_or("other", |(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    fn read(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("traceparent", value.parse().unwrap());
        }
        Traceparent::of(&headers).map(|found| format!("{} {} {}", found.trace_id, found.parent_id, found.sampled))
    }

    #[test]
    fn a_traceparent_of_the_documented_form_is_taken() {
        let expected = Some(format!("{TRACE} {PARENT} true"));
        assert_eq!(read(&[&format!("00-{TRACE}-{PARENT}-01")]), expected);
        assert_eq!(read(&[&format!("00-{TRACE}-{PARENT}-ff")]), expected);
        assert_eq!(read(&[&format!("00-{TRACE}-{PARENT}-02")]), Some(format!("{TRACE} {PARENT} false")));
        assert_eq!(read(&[&format!("cc-{TRACE}-{PARENT}-01")]), expected);
        assert_eq!(read(&[&format!("cc-{TRACE}-{PARENT}-01-what-comes-later")]), expected);
    }

    #[test]
    fn anything_else_says_nothing() {
        let good = format!("00-{TRACE}-{PARENT}-01");
        for bad in [
            "",
            "-",
            "00",
            &format!("ff-{TRACE}-{PARENT}-01"),
            &format!("00-{TRACE}-{PARENT}-01-more"),
            &format!("00-{TRACE}-{PARENT}-01-"),
            &format!("00-{TRACE}-{PARENT}"),
            &format!("00-{TRACE}-{PARENT}-1"),
            &format!("00-{TRACE}-{PARENT}-0x"),
            &format!("0-{TRACE}-{PARENT}-01"),
            &format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            &format!("00-{}-{PARENT}-01", "0".repeat(32)),
            &format!("00-{TRACE}-{}-01", "0".repeat(16)),
            &format!("00-{TRACE}0-{PARENT}-01"),
            &format!("00-{TRACE}-{PARENT}-01 "),
            &format!(" 00-{TRACE}-{PARENT}-01").replace(' ', "\t"),
            &good.replace('-', "_"),
            &"00-".repeat(2000),
        ] {
            assert_eq!(read(&[bad]), None, "{bad:?}");
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[&good, &good]), None, "which of two?");
    }
}
